// The inner loops, one table for each instruction set. All are noexcept and allocate nothing; a level gives
// the same bits as the scalar one, which is the readable twin of the oracle in the tests.
#pragma once

#include <cstddef>
#include <cstdint>

#include "retinaface/cpu.hpp"
#include "retinaface/decode.hpp"

namespace retinaface {

// What a scan may write past the last candidate: SIMD levels store whole vectors.
inline constexpr std::size_t kScanSlack = 8;

// Boxes, structure of arrays; readable up to the next multiple of 8, where the padding is boxes of zeros.
struct BoxesSoa {
    const float* x1;
    const float* y1;
    const float* x2;
    const float* y2;
    const float* area;
};

// Division decides an IoU, but costs as much as all the rest of it: it is left out where
// intersection > loose_iou_bound * union says that the IoU does not come near the threshold. Two roundings
// stand between the two forms, 16 ulp are given. Where the product could be subnormal, and its rounding
// coarse, every overlap is divided.
static inline float loose_iou_bound(float threshold, float area) noexcept {
    return threshold * area > 1e-30F ? threshold * (1.0F - 1e-6F) : 0.0F;
}

struct Kernels {
    // Pairs (background, face) of n anchors -> index (offset by first_index) and face - background of those
    // where the difference > minimum. Returns their number. Room for n + kScanSlack.
    std::size_t (*scan_logits)(const float* pairs, std::size_t n, float minimum, std::uint32_t first_index,
                               std::uint32_t* index, float* value) noexcept;
    // The same on probabilities: the value is the face probability.
    std::size_t (*scan_probabilities)(const float* pairs, std::size_t n, float minimum,
                                      std::uint32_t first_index, std::uint32_t* index, float* value) noexcept;
    // In place: 1 / (1 + exp(-x)).
    void (*sigmoid)(float* values, std::size_t n) noexcept;
    // Whether all boxes are finite.
    bool (*decode_boxes)(const float* deltas, const float* anchors, std::size_t n, Variances variances,
                         float* boxes) noexcept;
    void (*decode_landmarks)(const float* deltas, const float* anchors, std::size_t n, Variances variances,
                             float* landmarks) noexcept;
    // The first of `count` boxes that has IoU > threshold with `box` (x1, y1, x2, y2, positive finite area),
    // or `count`.
    std::size_t (*find_overlap)(const BoxesSoa& boxes, std::size_t count, const float* box, float area,
                                float threshold) noexcept;
};

extern const Kernels kScalarKernels;
#ifdef RETINAFACE_HAVE_AVX2
extern const Kernels kAvx2Kernels;
#endif

// The table of the active level. Throws as active_simd_level does.
[[nodiscard]] const Kernels& kernels();

}  // namespace retinaface
