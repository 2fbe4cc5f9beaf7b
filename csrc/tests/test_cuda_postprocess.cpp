// The kernels of a device, run on the CPU, against postprocess_batch: the same faces, bit for bit, in
// whatever order the threads run.
#include <algorithm>
#include <limits>
#include <thread>

#include "check.hpp"
#include "cuda_on_cpu.hpp"
#include "retinaface/cuda.hpp"

namespace {

using namespace retinaface;

const AnchorPyramid kPyramid({{8, {16, 32}}, {16, {64, 128}}, {32, {256, 512}}});

AnchorPyramid one_level(std::size_t stride, std::vector<float> sizes) {
    return AnchorPyramid(std::vector<AnchorLevel>{{stride, std::move(sizes)}});
}

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr std::size_t kColumns[] = {2, 4, 10};

// --- outputs of a network

enum class Layout { level_by_level, one_array, with_gaps, backwards, same_image };

// Rows of one kind for all images and levels, where a layout puts them.
class Rows {
  public:
    Rows(const AnchorPyramid& pyramid, ImageSize image, std::size_t batch_size, std::size_t columns,
         Layout layout) {
        const std::size_t levels = pyramid.levels().size();
        const std::size_t all = columns * pyramid.num_anchors(image);
        const std::size_t arrays = layout == Layout::one_array ? 1 : levels;
        std::size_t offset = 0;
        for (std::size_t k = 0; k < levels; ++k) {
            const std::size_t own = columns * pyramid.num_anchors(k, image);
            const std::size_t length = layout == Layout::one_array ? all : own;
            const std::size_t step = length + (layout == Layout::with_gaps ? 7 : 0);
            const std::size_t images = layout == Layout::same_image ? 1 : batch_size;
            if (k < arrays) arrays_.emplace_back((images - 1) * step + length, kNaN);
            first_.push_back(arrays_.back().data() + offset);
            strides_.push_back(static_cast<std::ptrdiff_t>(step));
            if (layout == Layout::same_image) strides_.back() = 0;
            if (layout == Layout::backwards) {
                first_.back() += (batch_size - 1) * step;
                strides_.back() = -strides_.back();
            }
            if (layout == Layout::one_array) offset += own;
        }
    }
    Rows(Rows&&) = default;  // a copy would have the pointers of the other
    [[nodiscard]] float* at(std::size_t level, std::size_t image) const {
        return first_[level] + static_cast<std::ptrdiff_t>(image) * strides_[level];
    }
    [[nodiscard]] std::ptrdiff_t stride(std::size_t level) const { return strides_[level]; }

  private:
    std::vector<std::vector<float>> arrays_;
    std::vector<float*> first_;
    std::vector<std::ptrdiff_t> strides_;
};

struct Batch {
    Batch(AnchorPyramid of, ImageSize size, std::size_t images, Layout layout = Layout::level_by_level)
        : pyramid(std::move(of)),
          image(size),
          batch_size(images),
          scores(pyramid, size, images, kColumns[0], layout),
          boxes(pyramid, size, images, kColumns[1], layout),
          landmarks(pyramid, size, images, kColumns[2], layout) {}

    // function(float* pair, float* box, float* landmarks), anchor after anchor.
    template <typename Function>
    void each_anchor(Function function) {
        for (std::size_t b = 0; b < batch_size; ++b) {
            for (std::size_t k = 0; k < pyramid.levels().size(); ++k) {
                for (std::size_t i = 0; i < pyramid.num_anchors(k, image); ++i) {
                    function(scores.at(k, b) + 2 * i, boxes.at(k, b) + 4 * i, landmarks.at(k, b) + 10 * i);
                }
            }
        }
    }

    [[nodiscard]] std::vector<LevelOutputs> on_host() const {
        std::vector<LevelOutputs> levels;
        for (std::size_t b = 0; b < batch_size; ++b) {
            for (std::size_t k = 0; k < pyramid.levels().size(); ++k) {
                levels.push_back({scores.at(k, b), boxes.at(k, b), landmarks.at(k, b)});
            }
        }
        return levels;
    }

    [[nodiscard]] std::vector<cuda::DeviceLevel> on_device() const {
        std::vector<cuda::DeviceLevel> levels;
        for (std::size_t k = 0; k < pyramid.levels().size(); ++k) {
            levels.push_back({scores.at(k, 0), boxes.at(k, 0), landmarks.at(k, 0), scores.stride(k),
                              boxes.stride(k), landmarks.stride(k)});
        }
        return levels;
    }

    AnchorPyramid pyramid;
    ImageSize image;
    std::size_t batch_size;
    Rows scores, boxes, landmarks;
};

void fill(Batch& batch, float face_share, std::uint64_t seed) {
    check::Random random(seed);
    batch.each_anchor([&](float* pair, float* box, float* landmarks) {
        const bool face = check::uniform(random, 0, 1) < face_share;
        pair[0] = check::uniform(random, -1, 1);
        pair[1] = pair[0] + (face ? check::uniform(random, 0.1F, 6) : -9.0F);
        for (int i = 0; i < 4; ++i) box[i] = check::uniform(random, -2, 2);
        for (int i = 0; i < 10; ++i) landmarks[i] = check::uniform(random, -2, 2);
    });
}

Batch random_batch(ImageSize image, std::size_t batch_size, float face_share, std::uint64_t seed,
                   Layout layout = Layout::level_by_level) {
    Batch batch(kPyramid, image, batch_size, layout);
    fill(batch, face_share, seed);
    return batch;
}

// --- both sides

cuda::DeviceFaces enqueue(const Batch& batch, const PostprocessOptions& options, int device = 0) {
    const std::vector<cuda::DeviceLevel> levels = batch.on_device();
    return cuda::postprocess(batch.pyramid, batch.image, levels.data(), batch.batch_size, options, device, 0);
}

cuda::HostFaces expected_faces(const Batch& batch, const PostprocessOptions& options) {
    std::vector<std::unique_ptr<Workspace>> workspaces;
    for (std::size_t b = 0; b < batch.batch_size; ++b) workspaces.push_back(std::make_unique<Workspace>());
    const std::vector<LevelOutputs> levels = batch.on_host();
    postprocess_batch(batch.pyramid, batch.image, levels.data(), batch.batch_size, options, 1, workspaces);
    cuda::HostFaces faces;
    faces.offsets.push_back(0);
    for (const auto& found : workspaces) {
        for (std::size_t i = 0; i < found->scores.size(); ++i) {
            faces.rows.insert(faces.rows.end(), found->boxes.data() + 4 * i, found->boxes.data() + 4 * i + 4);
            faces.rows.push_back(found->scores[i]);
            faces.rows.insert(faces.rows.end(), found->landmarks.data() + 10 * i,
                              found->landmarks.data() + 10 * i + 10);
        }
        faces.offsets.push_back(faces.offsets.back() + static_cast<std::int32_t>(found->scores.size()));
    }
    return faces;
}

// Which NaN it is, that no standard says.
bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](float x, float y) {
               return std::memcmp(&x, &y, sizeof x) == 0 || (x != x && y != y);
           });
}

bool same(const cuda::HostFaces& a, const cuda::HostFaces& b) {
    return a.offsets == b.offsets && same_bits(a.rows, b.rows);
}

// Returns the number of faces, for tests that must not be about none.
std::size_t check_same(const Batch& batch, const PostprocessOptions& options) {
    const cuda::HostFaces expected = expected_faces(batch, options);
    CHECK(same(enqueue(batch, options).to_host(), expected));
    return static_cast<std::size_t>(expected.offsets.back());
}

PostprocessOptions options_with(std::size_t top_k, std::size_t keep_top_k, double nms_threshold = 0.4) {
    PostprocessOptions options;
    options.top_k = top_k;
    options.keep_top_k = keep_top_k;
    options.nms_threshold = nms_threshold;
    return options;
}

// --- the same faces

void sizes_and_batches() {
    std::uint64_t seed = 0;
    for (const ImageSize image : {ImageSize{1, 1}, {31, 33}, {217, 333}, {640, 640}}) {
        for (const std::size_t batch_size : {1U, 3U, 17U}) {
            for (const float share : {0.0F, 0.02F, 1.0F}) {
                if (batch_size == 17 && image.height > (share == 1.0F ? 100U : 300U))
                    continue;  // takes its time
                const Batch batch = random_batch(image, batch_size, share, ++seed);
                const std::size_t faces = check_same(batch, {});
                CHECK((share == 1.0F) <= (faces > 0));
                CHECK(share > 0.0F || faces == 0);
            }
        }
    }
}

// Below, at and above the number of candidates, and of what a tile and a chunk hold.
void limits_of_candidates() {
    const Batch batch = random_batch({217, 333}, 1, 1.0F, 20);
    const std::size_t anchors = kPyramid.num_anchors(batch.image);
    for (const std::size_t top_k :
         {std::size_t{1}, std::size_t{63}, std::size_t{64}, std::size_t{65}, std::size_t{2047},
          std::size_t{2048}, std::size_t{2049}, anchors - 1, anchors, anchors + 1, std::size_t{0}}) {
        CHECK(check_same(batch, options_with(top_k, 750)) > 0);
    }
    for (const std::size_t keep_top_k : {1U, 7U, 750U, 0U}) {
        for (const double threshold : {0.0, 0.4, 1.0}) {
            CHECK(check_same(batch, options_with(0, keep_top_k, threshold)) > 0);
        }
    }
    const Batch large = random_batch({640, 640}, 1, 1.0F, 21);
    CHECK(check_same(large, options_with(5000, 750)) > 0);
    CHECK(check_same(large, options_with(0, 0)) > 750);
    // Exactly as many candidates as enter.
    Batch exact = random_batch({640, 640}, 1, 0.0F, 22);
    std::size_t faces = 0;
    exact.each_anchor([&](float* pair, float*, float*) {
        if (faces++ % 3 == 0 && faces < 3 * 5000)
            pair[1] = pair[0] + 1.0F + static_cast<float>(faces) * 1e-5F;
    });
    for (const std::size_t top_k : {4999U, 5000U, 5001U})
        CHECK(check_same(exact, options_with(top_k, 750)) > 0);
}

// What one thread or the other must not decide: the order of equal scores.
void ties() {
    for (const std::size_t groups : {1U, 5U, 200U}) {
        Batch batch = random_batch({217, 333}, 3, 1.0F, 30 + groups);
        check::Random random(groups);
        batch.each_anchor([&](float* pair, float*, float*) {
            pair[0] = 0.0F;
            pair[1] = 0.5F + static_cast<float>(random() % groups) / 64.0F;
        });
        for (const std::size_t top_k : {0U, 100U, 2500U}) {
            CHECK(check_same(batch, options_with(top_k, 750)) > 0);
        }
    }
    // -0 and 0 are one score.
    Batch zeros = random_batch({31, 33}, 1, 1.0F, 33);
    std::size_t at = 0;
    zeros.each_anchor([&](float* pair, float*, float*) { pair[1] = at++ % 2 == 0 ? 0.0F : -0.0F; });
    PostprocessOptions options;
    options.score_kind = ScoreKind::probabilities;
    options.score_threshold = 0.0;
    CHECK(check_same(zeros, options) == 0);
}

void probabilities() {
    Batch batch = random_batch({217, 333}, 3, 1.0F, 40);
    check::Random random(40);
    batch.each_anchor([&](float* pair, float*, float*) { pair[1] = check::uniform(random, 0, 1); });
    PostprocessOptions options;
    options.score_kind = ScoreKind::probabilities;
    for (const double threshold : {0.0, 0.02, 0.5, 0.99, 1.0}) {
        options.score_threshold = threshold;
        CHECK((threshold < 1.0) == (check_same(batch, options) > 0));
    }
}

// Logits around the threshold: the bound of the scan keeps all that the sigmoid has above it.
void thresholds() {
    for (const double threshold : {0.0, 1e-30, 0.02, 0.5, 0.6, 0.99999994, 1.0}) {
        Batch batch = random_batch({64, 64}, 2, 1.0F, 41);
        const double at = threshold <= 0 ? -88 : threshold >= 1 ? 17 : std::log(threshold / (1 - threshold));
        float step = -80.0F;
        batch.each_anchor([&](float* pair, float*, float*) {
            pair[0] = 0.0F;
            step += 1.0F;
            pair[1] =
                static_cast<float>(at) * (1.0F + step * 1e-7F) + (threshold == 0.5 ? step * 1e-8F : 0.0F);
        });
        PostprocessOptions options = options_with(0, 0, 1.0);
        options.score_threshold = threshold;
        const std::size_t faces = check_same(batch, options);
        CHECK(threshold > 0.9 || faces > 0);
    }
}

// Boxes that are not finite have a place among the top_k, and leave it without a face.
void values_that_are_no_numbers() {
    const float odd[] = {kNaN, kInfinity, -kInfinity, 3e38F, -3e38F, 1e-45F, 500.0F, -2000.0F};
    for (const float share : {0.01F, 0.3F}) {
        Batch batch = random_batch({217, 333}, 3, 0.7F, 50);
        check::Random random(51);
        const auto spoil = [&](float* values, int count) {
            for (int i = 0; i < count; ++i) {
                if (check::uniform(random, 0, 1) < share) values[i] = odd[random() % std::size(odd)];
            }
        };
        batch.each_anchor([&](float* pair, float* box, float* landmarks) {
            spoil(pair, 2);
            spoil(box, 4);
            spoil(landmarks, 10);
        });
        for (const std::size_t top_k : {50U, 1000U, 0U}) {
            for (const double threshold : {0.0, 0.4, 1.0}) {
                CHECK(check_same(batch, options_with(top_k, 750, threshold)) > 0);
            }
        }
        PostprocessOptions options;
        options.score_kind = ScoreKind::probabilities;
        CHECK(check_same(batch, options) > 0);
    }
    // All of the best are dropped.
    Batch batch = random_batch({217, 333}, 1, 0.5F, 52);
    batch.each_anchor([&](float* pair, float* box, float*) {
        if (pair[1] - pair[0] > 4.0F) box[2] = kNaN;
    });
    CHECK(check_same(batch, options_with(100, 750)) == 0);
    CHECK(check_same(batch, options_with(0, 750)) > 0);
}

void boxes_without_area() {
    Batch batch = random_batch({217, 333}, 2, 1.0F, 60);
    std::size_t at = 0;
    batch.each_anchor([&](float*, float* box, float*) {
        if (at++ % 3 == 0) box[2] = -1e4F;
        if (at % 5 == 0) box[3] = -510.0F;  // a side that is there, an area that is none
    });
    for (const double threshold : {0.0, 0.4, 1.0})
        CHECK(check_same(batch, options_with(0, 0, threshold)) > 0);
}

void layouts() {
    for (const Layout layout : {Layout::level_by_level, Layout::one_array, Layout::with_gaps,
                                Layout::backwards, Layout::same_image}) {
        CHECK(check_same(random_batch({96, 160}, 5, 0.2F, 70, layout), {}) > 0);
    }
}

void pyramids() {
    check::Random random(80);
    for (const std::size_t level_count : {1U, 2U, 8U}) {
        for (const std::size_t size_count : {1U, 3U, 8U}) {
            std::vector<AnchorLevel> levels;
            for (std::size_t k = 0; k < level_count; ++k) {
                AnchorLevel level{random() % 40 + 5, {}};
                for (std::size_t i = 0; i < size_count; ++i) {
                    level.sizes.push_back(check::uniform(random, 5, 300));
                }
                levels.push_back(std::move(level));
            }
            Batch batch(AnchorPyramid(levels), {77, 131}, 2);
            fill(batch, 0.5F, level_count);
            CHECK(check_same(batch, {}) > 0);
        }
    }
}

// Many images, whose first faces lie behind those of all before.
void many_images() {
    Batch batch(one_level(8, {16}), {20, 20}, 300);
    fill(batch, 0.3F, 90);
    CHECK(check_same(batch, {}) > 300);
    CHECK(check_same(batch, options_with(0, 0, 1.0)) > 500);
}

void no_order_of_threads_matters() {
    std::vector<Batch> batches;
    batches.push_back(random_batch({217, 333}, 3, 1.0F, 100));
    batches.push_back(random_batch({96, 160}, 5, 0.2F, 101));
    batches[0].each_anchor([](float* pair, float*, float*) { pair[1] = std::round(pair[1] * 4.0F) / 4.0F; });
    for (const Batch& batch : batches) {
        for (const std::size_t top_k : {0U, 300U}) {
            const cuda::HostFaces expected = expected_faces(batch, options_with(top_k, 0));
            for (const std::uint64_t order : {cuda_on_cpu::kInOrder, cuda_on_cpu::kReversed, std::uint64_t{2},
                                              std::uint64_t{3}, std::uint64_t{4}}) {
                cuda_on_cpu::schedule(order);
                CHECK(same(enqueue(batch, options_with(top_k, 0)).to_host(), expected));
            }
            cuda_on_cpu::schedule(cuda_on_cpu::kInOrder);
        }
    }
}

void several_callers() {
    std::vector<std::thread> callers;
    std::vector<int> wrong(4, 0);
    for (std::size_t t = 0; t < wrong.size(); ++t) {
        callers.emplace_back([&, t]() {
            const Batch batch = random_batch({40 + 8 * t, 60}, 2, 0.5F, t);
            const cuda::HostFaces expected = expected_faces(batch, {});
            for (int i = 0; i < 5; ++i) {
                if (!same(enqueue(batch, {}).to_host(), expected)) ++wrong[t];
            }
        });
    }
    for (std::thread& caller : callers) caller.join();
    for (const int count : wrong) CHECK(count == 0);
}

// --- what a call does besides

void nothing_waits_unless_asked() {
    const Batch batch = random_batch({217, 333}, 3, 1.0F, 110);
    static_cast<void>(enqueue(batch, {}));  // the pool is there
    cuda_on_cpu::reset_counters();
    {
        cuda::DeviceFaces faces = enqueue(batch, {});
        cuda_on_cpu::Counters counters = cuda_on_cpu::counters();
        CHECK(counters.synchronisations == 0 && counters.copies_to_host == 0 && counters.launches > 0);
        CHECK(counters.live_allocations == 1);  // the results; the workspace has gone back
        CHECK(faces.batch_size() == 3 && faces.capacity() == 3 * 750 && faces.device() == 0);
        CHECK(cuda::device_of(faces.rows()) == 0 && cuda::device_of(faces.offsets()) == 0);

        const cuda::HostFaces on_host = faces.to_host();
        counters = cuda_on_cpu::counters();
        const bool fits = on_host.offsets.back() <= 1024;
        CHECK(counters.synchronisations == (fits ? 1 : 2) && counters.copies_to_host == (fits ? 1 : 2));

        cuda::DeviceFaces moved = std::move(faces);
        faces = enqueue(batch, {});
        CHECK(same(moved.to_host(), on_host) && same(faces.to_host(), on_host));
        CHECK(cuda_on_cpu::counters().live_allocations == 2);
        moved = cuda::DeviceFaces();
    }
    CHECK(cuda_on_cpu::counters().live_allocations == 0);
    CHECK(cuda_on_cpu::counters().allocations == 4);
}

// One copy up to a thousand faces; beyond, a second one brings the rest.
void copies() {
    for (const std::size_t keep_top_k : {1023U, 1024U, 1025U, 3000U}) {
        const Batch batch = random_batch({217, 333}, 1, 1.0F, 120);
        const PostprocessOptions options = options_with(0, keep_top_k, 1.0);
        const cuda::DeviceFaces faces = enqueue(batch, options);
        cuda_on_cpu::reset_counters();
        CHECK(same(faces.to_host(), expected_faces(batch, options)));
        const std::size_t copied = keep_top_k > 1024 ? 2 : 1;
        CHECK(cuda_on_cpu::counters().copies_to_host == copied);
        CHECK(cuda_on_cpu::counters().synchronisations == copied);
    }
}

template <typename Exception, typename Function>
bool throws(Function function) {
    try {
        function();
    } catch (const Exception&) {
        return true;
    } catch (const std::exception&) {
        return false;
    }
    return false;
}

void beyond_the_limits() {
    const auto refused = [](const AnchorPyramid& pyramid, ImageSize image, std::size_t batch_size,
                            const PostprocessOptions& options) {
        const std::vector<cuda::DeviceLevel> levels(pyramid.levels().size());
        return throws<std::invalid_argument>([&]() {
            static_cast<void>(cuda::postprocess(pyramid, image, levels.data(), batch_size, options, 0, 0));
        });
    };
    cuda_on_cpu::reset_counters();
    const ImageSize image{64, 64};
    CHECK(refused(AnchorPyramid(std::vector<AnchorLevel>(9, {8, {16}})), image, 1, {}));
    CHECK(refused(one_level(8, std::vector<float>(9, 16)), image, 1, {}));
    CHECK(refused(kPyramid, image, 0, {}));
    CHECK(refused(kPyramid, image, cuda::kMaxBatch + 1, {}));
    CHECK(refused(one_level(1, {16}), {std::size_t{1} << 16U, std::size_t{1} << 16U}, 1, {}));
    CHECK(refused(kPyramid, {1280, 1280}, cuda::kMaxBatch, options_with(0, 0)));
    CHECK(cuda_on_cpu::counters().allocations == 0 && cuda_on_cpu::counters().launches == 0);
}

// Every call of CUDA fails once; nothing is lost, and the next batch is as ever.
void failures() {
    const Batch batch = random_batch({96, 160}, 2, 0.5F, 130);
    const cuda::HostFaces expected = expected_faces(batch, {});
    CHECK(same(enqueue(batch, {}).to_host(), expected));
    cuda_on_cpu::reset_counters();
    for (const char* const name : {"cudaMallocFromPoolAsync", "cudaMemsetAsync", "cudaLaunchKernelEx",
                                   "cudaMemcpyAsync", "cudaStreamSynchronize"}) {
        std::size_t failed = 0;
        for (std::size_t calls = 0; calls < 32; ++calls) {
            cuda_on_cpu::clear_faults();
            cuda_on_cpu::fail_after(name, calls, cudaErrorMemoryAllocation);
            if (!throws<cuda::Error>([&]() { CHECK(same(enqueue(batch, {}).to_host(), expected)); })) break;
            ++failed;
            CHECK(cudaPeekAtLastError() == cudaSuccess);
            cuda_on_cpu::clear_faults();
            CHECK(cuda_on_cpu::counters().live_allocations == 0);
        }
        CHECK(failed > 0 && failed < 32);
    }
    cuda_on_cpu::clear_faults();
    cuda_on_cpu::fail_next("cudaGetDevice", cudaErrorInsufficientDriver);
    CHECK(throws<cuda::Error>([&]() { static_cast<void>(enqueue(batch, {})); }));
    {
        cuda_on_cpu::fail_next("kernel", cudaErrorIllegalAddress);
        const cuda::DeviceFaces faces = enqueue(batch, {});
        CHECK(throws<cuda::Error>([&]() { static_cast<void>(faces.to_host()); }));
    }
    CHECK(same(enqueue(batch, {}).to_host(), expected));
    CHECK(cuda_on_cpu::counters().live_allocations == 0);
}

void devices() {
    const Batch batch = random_batch({31, 33}, 2, 1.0F, 140);
    CHECK(cuda::device_count() == 1 && cuda::obstacle(0).empty());
    CHECK(!cuda::obstacle(1).empty() && !cuda::obstacle(-1).empty());
    CHECK(throws<cuda::Error>([&]() { static_cast<void>(enqueue(batch, {}, 1)); }));
    cuda_on_cpu::set_device_count(2);
    int current = -1;
    {
        const cuda::DeviceFaces faces = enqueue(batch, {}, 1);
        CHECK(faces.device() == 1 && cuda::device_of(faces.rows()) == 1);
        CHECK(cudaGetDevice(&current) == cudaSuccess && current == 0);
        CHECK(same(faces.to_host(), expected_faces(batch, {})));
    }
    CHECK(cudaGetDevice(&current) == cudaSuccess && current == 0);
    CHECK(cuda_on_cpu::counters().live_allocations == 0);
    cuda_on_cpu::set_device_count(0);
    CHECK(cuda::device_count() == 0 && !cuda::obstacle(0).empty());
    cuda_on_cpu::set_device_count(1);
    CHECK(cudaPeekAtLastError() == cudaErrorNoDevice || cudaPeekAtLastError() == cudaSuccess);

    CHECK(throws<cuda::Error>([&]() { static_cast<void>(cuda::device_of(&current)); }));
    cuda_on_cpu::reset_counters();
    cuda::wait_for(0, 0, 1);
    CHECK(cuda_on_cpu::counters().stream_waits == 1 && cuda_on_cpu::counters().synchronisations == 0);
    for (const char* const name : {"cudaEventCreateWithFlags", "cudaEventRecord", "cudaStreamWaitEvent"}) {
        cuda_on_cpu::fail_next(name, cudaErrorInvalidResourceHandle);
        CHECK(throws<cuda::Error>([]() { cuda::wait_for(0, 0, 1); }));
    }
    CHECK(cuda_on_cpu::counters().live_events == 0);
    cuda_on_cpu::fail_next("cudaFuncGetAttributes", cudaErrorNoKernelImageForDevice);
    CHECK(!cuda::obstacle(0).empty());
    cuda_on_cpu::clear_faults();
}

}  // namespace

#if defined(__SANITIZE_THREAD__)
// Looked at for races, a kernel takes many times as long: all of them once, several chunks among it.
CHECK_MAIN(layouts, boxes_without_area, copies)
#else
CHECK_MAIN(sizes_and_batches, limits_of_candidates, ties, probabilities, thresholds,
           values_that_are_no_numbers, boxes_without_area, layouts, pyramids, many_images,
           no_order_of_threads_matters, several_callers, nothing_waits_unless_asked, copies,
           beyond_the_limits, failures, devices)
#endif
