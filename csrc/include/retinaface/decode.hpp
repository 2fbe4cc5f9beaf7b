// Boxes and landmarks from and to the deltas that the network predicts relative to anchors.
//
// deltas (dx, dy, dw, dh) of an anchor (cx, cy, w, h), with variances (v0, v1):
//   box centre = (cx + dx * v0 * w, cy + dy * v0 * h), box size = (w * exp(dw * v1), h * exp(dh * v1))
//   landmark k = (cx + dx_k * v0 * w, cy + dy_k * v0 * h)
// as in SSD (Liu et al. 2016, equation 2), with the variances of the original Caffe code. Anchors are cxcywh,
// boxes are xyxy, all in pixels; every pointer is to contiguous rows. Results are the same bit for bit at
// every SIMD level. Nothing is clipped or checked: NaN and infinity go through.
#pragma once

#include <cstddef>

#include "retinaface/anchors.hpp"

namespace retinaface {

inline constexpr std::size_t kLandmarks = 5;
inline constexpr std::size_t kLandmarkFloats = 2 * kLandmarks;

struct Variances {
    float center = 0.1F;
    float size = 0.2F;
};

// deltas (n, 4), anchors (n, 4) -> boxes (n, 4)
void decode_boxes(const float* deltas, const float* anchors_cxcywh, std::size_t n, Variances variances,
                  float* boxes_xyxy);

// deltas (n, 10), anchors (n, 4) -> landmarks (n, 10): x and y of five points
void decode_landmarks(const float* deltas, const float* anchors_cxcywh, std::size_t n, Variances variances,
                      float* landmarks);

// The inverse of decode_boxes. A box without area gives infinite or NaN size deltas.
void encode_boxes(const float* boxes_xyxy, const float* anchors_cxcywh, std::size_t n, Variances variances,
                  float* deltas) noexcept;

// The inverse of decode_landmarks.
void encode_landmarks(const float* landmarks, const float* anchors_cxcywh, std::size_t n, Variances variances,
                      float* deltas) noexcept;

// Moves every coordinate into [0, width] x [0, height]; NaN stays NaN. In place is allowed.
void clip_boxes(const float* boxes_xyxy, std::size_t n, ImageSize image, float* clipped_xyxy) noexcept;

}  // namespace retinaface
