// Made-up outputs of a network, and the faces that both sides find in them.
#pragma once

#include <algorithm>
#include <limits>

#include "check.hpp"
#include "cuda_on_cpu.hpp"
#include "retinaface/cuda.hpp"

namespace batches {

using namespace retinaface;

inline const AnchorPyramid kPyramid({{8, {16, 32}}, {16, {64, 128}}, {32, {256, 512}}});

inline AnchorPyramid one_level(std::size_t stride, std::vector<float> sizes) {
    return AnchorPyramid(std::vector<AnchorLevel>{{stride, std::move(sizes)}});
}

inline constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
inline constexpr float kInfinity = std::numeric_limits<float>::infinity();
inline constexpr std::size_t kColumns[] = {2, 4, 10};

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

inline void fill(Batch& batch, float face_share, std::uint64_t seed) {
    check::Random random(seed);
    batch.each_anchor([&](float* pair, float* box, float* landmarks) {
        const bool face = check::uniform(random, 0, 1) < face_share;
        pair[0] = check::uniform(random, -1, 1);
        pair[1] = pair[0] + (face ? check::uniform(random, 0.1F, 6) : -9.0F);
        for (int i = 0; i < 4; ++i) box[i] = check::uniform(random, -2, 2);
        for (int i = 0; i < 10; ++i) landmarks[i] = check::uniform(random, -2, 2);
    });
}

inline Batch random_batch(ImageSize image, std::size_t batch_size, float face_share, std::uint64_t seed,
                          Layout layout = Layout::level_by_level) {
    Batch batch(kPyramid, image, batch_size, layout);
    fill(batch, face_share, seed);
    return batch;
}

// --- both sides

inline cuda::DeviceFaces enqueue(const Batch& batch, const PostprocessOptions& options, int device = 0,
                                 std::uintptr_t stream = 0) {
    const std::vector<cuda::DeviceLevel> levels = batch.on_device();
    return cuda::postprocess(batch.pyramid, batch.image, levels.data(), batch.batch_size, options, device,
                             stream);
}

inline cuda::HostFaces expected_faces(const Batch& batch, const PostprocessOptions& options) {
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
inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](float x, float y) {
               return std::memcmp(&x, &y, sizeof x) == 0 || (x != x && y != y);
           });
}

inline bool same(const cuda::HostFaces& a, const cuda::HostFaces& b) {
    return a.offsets == b.offsets && same_bits(a.rows, b.rows);
}

// Returns the number of faces, for tests that must not be about none.
inline std::size_t check_same(const Batch& batch, const PostprocessOptions& options) {
    const cuda::HostFaces expected = expected_faces(batch, options);
    CHECK(same(enqueue(batch, options).to_host(), expected));
    return static_cast<std::size_t>(expected.offsets.back());
}

inline PostprocessOptions options_with(std::size_t top_k, std::size_t keep_top_k,
                                       double nms_threshold = 0.4) {
    PostprocessOptions options;
    options.top_k = top_k;
    options.keep_top_k = keep_top_k;
    options.nms_threshold = nms_threshold;
    return options;
}

}  // namespace batches
