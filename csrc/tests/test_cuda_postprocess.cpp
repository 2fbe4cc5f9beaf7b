// The kernels of a device, run on the CPU, against postprocess_batch: the same faces, bit for bit, in
// whatever order the threads run.
#include <thread>

#include "cuda_batches.hpp"

namespace {

using namespace batches;

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

// More than a million candidates: the outputs of an 8K image, where every anchor is one.
void a_million_candidates() {
    // Takes its time, and postprocess_batch is the same at every level: once.
    const char* const level = std::getenv("RETINAFACE_FAST_SIMD");
    if (level != nullptr && std::strcmp(level, "scalar") != 0) return;
    const Batch batch = random_batch({4320, 7680}, 1, 1.0F, 200);
    CHECK(kPyramid.num_anchors(batch.image) == 1360800);
    CHECK(check_same(batch, options_with(5000, 0)) > 750);
}

}  // namespace

#if defined(__SANITIZE_THREAD__)
// Looked at for races, a kernel takes many times as long: all of them once, several chunks among it.
CHECK_MAIN(layouts, boxes_without_area)
#else
CHECK_MAIN(sizes_and_batches, limits_of_candidates, ties, probabilities, thresholds,
           values_that_are_no_numbers, boxes_without_area, layouts, pyramids, many_images,
           no_order_of_threads_matters, several_callers, a_million_candidates)
#endif
