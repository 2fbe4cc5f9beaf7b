#include "retinaface/decode.hpp"

#include <cmath>

#include "kernels/kernels.hpp"

namespace retinaface {

namespace {

// Written so that NaN, which compares false, comes out as itself.
float clamp(float value, float upper) noexcept {
    const float raised = value < 0.0F ? 0.0F : value;
    return raised > upper ? upper : raised;
}

}  // namespace

void decode_boxes(const float* deltas, const float* anchors_cxcywh, std::size_t n, Variances variances,
                  float* boxes_xyxy) {
    kernels().decode_boxes(deltas, anchors_cxcywh, n, variances, boxes_xyxy);
}

void decode_landmarks(const float* deltas, const float* anchors_cxcywh, std::size_t n, Variances variances,
                      float* landmarks) {
    kernels().decode_landmarks(deltas, anchors_cxcywh, n, variances, landmarks);
}

void encode_boxes(const float* boxes_xyxy, const float* anchors_cxcywh, std::size_t n, Variances variances,
                  float* deltas) noexcept {
    for (std::size_t i = 0; i < n; ++i) {
        const float* const box = boxes_xyxy + 4 * i;
        const float* const anchor = anchors_cxcywh + 4 * i;
        float* const delta = deltas + 4 * i;
        for (std::size_t axis = 0; axis < 2; ++axis) {
            const float center = (box[axis] + box[axis + 2]) * 0.5F;
            const float side = box[axis + 2] - box[axis];
            delta[axis] = (center - anchor[axis]) / (variances.center * anchor[axis + 2]);
            delta[axis + 2] = std::log(side / anchor[axis + 2]) / variances.size;
        }
    }
}

void encode_landmarks(const float* landmarks, const float* anchors_cxcywh, std::size_t n, Variances variances,
                      float* deltas) noexcept {
    for (std::size_t i = 0; i < n; ++i) {
        const float* const anchor = anchors_cxcywh + 4 * i;
        for (std::size_t k = 0; k < kLandmarkFloats; ++k) {
            const std::size_t axis = k % 2;
            const std::size_t at = kLandmarkFloats * i + k;
            deltas[at] = (landmarks[at] - anchor[axis]) / (variances.center * anchor[axis + 2]);
        }
    }
}

void clip_boxes(const float* boxes_xyxy, std::size_t n, ImageSize image, float* clipped_xyxy) noexcept {
    const auto width = static_cast<float>(image.width);
    const auto height = static_cast<float>(image.height);
    for (std::size_t i = 0; i < 4 * n; i += 2) {
        clipped_xyxy[i] = clamp(boxes_xyxy[i], width);
        clipped_xyxy[i + 1] = clamp(boxes_xyxy[i + 1], height);
    }
}

}  // namespace retinaface
