// Anchors: the reference boxes of every cell of a feature pyramid.
//
// All lengths are pixels of the network's input; the origin is the top left corner of the image. An anchor is
// (centre x, centre y, width, height). The anchors of an image are ordered by level, row, column, size, and
// that position is the anchor's index everywhere in this library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace retinaface {

struct ImageSize {
    std::size_t height;
    std::size_t width;
};

struct AnchorLevel {
    std::size_t stride;        // pixels between neighbouring cells, at least 1
    std::vector<float> sizes;  // side of each square anchor of a cell, pixels
};

// The largest side of an image and the largest anchor count: both keep every index within 31 bits.
inline constexpr std::size_t kMaxImageSide = std::size_t{1} << 20;
inline constexpr std::size_t kMaxAnchors = (std::size_t{1} << 31) - 1;

class AnchorPyramid {
  public:
    // Throws std::invalid_argument if there is no level, a stride is 0, or a size is missing, not positive or
    // not finite.
    explicit AnchorPyramid(std::vector<AnchorLevel> levels);

    [[nodiscard]] const std::vector<AnchorLevel>& levels() const noexcept { return levels_; }

    // Rows and columns of the feature map of a level: the image divided by the stride, rounded up.
    [[nodiscard]] ImageSize feature_size(std::size_t level, ImageSize image) const noexcept;

    [[nodiscard]] std::size_t num_anchors(std::size_t level, ImageSize image) const noexcept;
    [[nodiscard]] std::size_t num_anchors(ImageSize image) const noexcept;

    // Writes num_anchors(image) anchors, 4 floats each: the centre of cell (row i, column j) is
    // ((j + 0.5) * stride, (i + 0.5) * stride).
    void generate(ImageSize image, float* anchors_cxcywh) const noexcept;

  private:
    std::vector<AnchorLevel> levels_;
};

}  // namespace retinaface
