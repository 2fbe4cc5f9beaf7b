#include "retinaface/anchors.hpp"

#include <cmath>
#include <stdexcept>
#include <utility>

namespace retinaface {

AnchorPyramid::AnchorPyramid(std::vector<AnchorLevel> levels) : levels_(std::move(levels)) {
    if (levels_.empty()) throw std::invalid_argument("an anchor pyramid needs at least one level");
    for (const AnchorLevel& level : levels_) {
        if (level.stride == 0 || level.stride > kMaxImageSide) {
            throw std::invalid_argument("an anchor stride must be within 1 and 1048576 pixels");
        }
        if (level.sizes.empty()) throw std::invalid_argument("every level needs at least one anchor size");
        for (const float size : level.sizes) {
            if (!(size > 0.0F) || !std::isfinite(size)) {
                throw std::invalid_argument("anchor sizes must be positive and finite");
            }
        }
    }
}

ImageSize AnchorPyramid::feature_size(std::size_t level, ImageSize image) const noexcept {
    const std::size_t stride = levels_[level].stride;
    return {(image.height + stride - 1) / stride, (image.width + stride - 1) / stride};
}

std::size_t AnchorPyramid::num_anchors(std::size_t level, ImageSize image) const noexcept {
    const ImageSize feature = feature_size(level, image);
    return feature.height * feature.width * levels_[level].sizes.size();
}

std::size_t AnchorPyramid::num_anchors(ImageSize image) const noexcept {
    std::size_t total = 0;
    for (std::size_t level = 0; level < levels_.size(); ++level) total += num_anchors(level, image);
    return total;
}

void AnchorPyramid::generate(ImageSize image, float* anchors_cxcywh) const noexcept {
    for (std::size_t k = 0; k < levels_.size(); ++k) {
        const ImageSize feature = feature_size(k, image);
        const auto stride = static_cast<float>(levels_[k].stride);
        for (std::size_t row = 0; row < feature.height; ++row) {
            const float cy = (static_cast<float>(row) + 0.5F) * stride;
            for (std::size_t column = 0; column < feature.width; ++column) {
                const float cx = (static_cast<float>(column) + 0.5F) * stride;
                for (const float size : levels_[k].sizes) {
                    anchors_cxcywh[0] = cx;
                    anchors_cxcywh[1] = cy;
                    anchors_cxcywh[2] = size;
                    anchors_cxcywh[3] = size;
                    anchors_cxcywh += 4;
                }
            }
        }
    }
}

}  // namespace retinaface
