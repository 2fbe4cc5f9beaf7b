// What is computed for one anchor, one box or one pair of boxes, the same on the host and on a device: the
// kernels of both are loops around these functions, so that what is tested of one holds for the other.
// Compiled without contraction to fused multiply-adds on either side (-ffp-contract=off, --fmad=false), and
// with IEEE division, the results are the same bit for bit.
//
// `static`, and not for the files of an instruction set: each translation unit has its own copy, which no
// linker can exchange for one that was compiled for another processor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/exp_constants.hpp"
#include "retinaface/decode.hpp"

#ifdef __CUDACC__
#define RETINAFACE_SHARED __host__ __device__ __forceinline__ static
#else
#define RETINAFACE_SHARED static inline
#endif

namespace retinaface {

// --- floats as bits

RETINAFACE_SHARED float float_of_bits(std::uint32_t bits) noexcept {
    float value = 0.0F;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

RETINAFACE_SHARED std::uint32_t bits_of_float(float value) noexcept {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline constexpr std::uint32_t kInfinityBits = 0x7F800000U;
inline constexpr float kLargestFloat = 3.40282347e+38F;

// Infinity and NaN have all bits of the exponent.
RETINAFACE_SHARED bool is_finite(float value) noexcept {
    return (bits_of_float(value) & kInfinityBits) != kInfinityBits;
}

// --- scores

RETINAFACE_SHARED float power_of_two(int exponent) noexcept {
    return float_of_bits(static_cast<std::uint32_t>(exponent + 127) << 23U);
}

RETINAFACE_SHARED float exponential(float x) noexcept {
    if (x != x) return x;
    if (x > kExpOverflow) return float_of_bits(kInfinityBits);
    if (x < kExpUnderflow) return 0.0F;
    const float n = (x * kLog2E + kRoundMagic) - kRoundMagic;
    const float r = (x - n * kLn2High) - n * kLn2Low;
    float p = kExpC0;
    p = p * r + kExpC1;
    p = p * r + kExpC2;
    p = p * r + kExpC3;
    p = p * r + kExpC4;
    p = p * r + kExpC5;
    const float y = (p * (r * r) + r) + 1.0F;
    // In two steps: 2^128 alone is not a float, but the product may be one.
    const int exponent = static_cast<int>(n);
    const int half = exponent >> 1;
    return (y * power_of_two(half)) * power_of_two(exponent - half);
}

RETINAFACE_SHARED float sigmoid(float x) noexcept { return 1.0F / (1.0F + exponential(-x)); }

// Ascending keys are descending scores. Zero is added so that -0 and 0 are equal.
RETINAFACE_SHARED std::uint32_t descending_key(float score) noexcept {
    const std::uint32_t bits = bits_of_float(score + 0.0F);
    const std::uint32_t ascending = (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
    return ~ascending;
}

// The score that a key was made of.
RETINAFACE_SHARED float score_of_key(std::uint32_t key) noexcept {
    const std::uint32_t ascending = ~key;
    return float_of_bits((ascending & 0x80000000U) != 0 ? ascending & 0x7FFFFFFFU : ~ascending);
}

// The order of candidates: by score, highest first, and by index where scores are equal. No two of one image
// are the same, so that there is one order, whatever they are sorted by.
RETINAFACE_SHARED std::uint64_t candidate_key(float score, std::uint32_t index) noexcept {
    return static_cast<std::uint64_t>(descending_key(score)) << 32U | index;
}

// --- anchors

// Division of numbers below 2^31 by a number known beforehand, as one multiplication (Granlund and Montgomery
// 1994): with 2^(bits - 1) < divisor <= 2^bits, multiplier = ceil(2^(31 + bits) / divisor) is too large by
// less than 1, which numerators below 2^31 do not feel, and the product stays below 2^64.
struct Divisor {
    Divisor() = default;
    explicit Divisor(std::uint32_t divisor) noexcept {
        while ((std::uint64_t{1} << (shift - 31U)) < divisor) ++shift;
        multiplier = ((std::uint64_t{1} << shift) + divisor - 1) / divisor;
    }
    unsigned shift = 31;
    std::uint64_t multiplier = 0;
};

RETINAFACE_SHARED std::uint32_t quotient(std::uint32_t numerator, const Divisor& divisor) noexcept {
    return static_cast<std::uint32_t>(numerator * divisor.multiplier >> divisor.shift);
}

// The cells of a level: where an anchor lies, from its index within the level.
struct CellGrid {
    std::uint32_t per_cell = 1;  // anchors of a cell
    std::uint32_t width = 1;     // cells of a row
    float stride = 1.0F;         // pixels
    Divisor by_per_cell;
    Divisor by_width;

    CellGrid() = default;
    CellGrid(const AnchorLevel& level, ImageSize feature) noexcept
        : per_cell(static_cast<std::uint32_t>(level.sizes.size())),
          width(static_cast<std::uint32_t>(feature.width)),
          stride(static_cast<float>(level.stride)),
          by_per_cell(per_cell),
          by_width(width) {}
};

// `sizes` are those of the anchors of a cell.
RETINAFACE_SHARED void write_anchor(const CellGrid& grid, const float* sizes, std::uint32_t index,
                                    float* anchor_cxcywh) noexcept {
    const std::uint32_t cell = quotient(index, grid.by_per_cell);
    const std::uint32_t row = quotient(cell, grid.by_width);
    const float size = sizes[index - cell * grid.per_cell];
    // Both are below 2^20: a signed conversion is one instruction.
    anchor_cxcywh[0] =
        (static_cast<float>(static_cast<std::int32_t>(cell - row * grid.width)) + 0.5F) * grid.stride;
    anchor_cxcywh[1] = (static_cast<float>(static_cast<std::int32_t>(row)) + 0.5F) * grid.stride;
    anchor_cxcywh[2] = size;
    anchor_cxcywh[3] = size;
}

// --- boxes and landmarks

// Whether the box is finite.
RETINAFACE_SHARED bool decode_box(const float* deltas, const float* anchor_cxcywh, Variances variances,
                                  float* box_xyxy) noexcept {
    bool finite = true;
    for (int axis = 0; axis < 2; ++axis) {
        const float side = anchor_cxcywh[axis + 2];
        const float center = anchor_cxcywh[axis] + (deltas[axis] * variances.center) * side;
        const float half = (side * exponential(deltas[axis + 2] * variances.size)) * 0.5F;
        box_xyxy[axis] = center - half;
        box_xyxy[axis + 2] = center + half;
        finite = finite && is_finite(box_xyxy[axis]) && is_finite(box_xyxy[axis + 2]);
    }
    return finite;
}

RETINAFACE_SHARED void decode_five_landmarks(const float* deltas, const float* anchor_cxcywh,
                                             Variances variances, float* landmarks) noexcept {
    for (int k = 0; k < static_cast<int>(kLandmarkFloats); ++k) {
        const int axis = k % 2;
        landmarks[k] = anchor_cxcywh[axis] + (deltas[k] * variances.center) * anchor_cxcywh[axis + 2];
    }
}

// --- overlap

// 0 unless both sides are positive and the area is positive and finite: such a box overlaps nothing.
RETINAFACE_SHARED float box_area(const float* box_xyxy) noexcept {
    const float width = box_xyxy[2] - box_xyxy[0];
    const float height = box_xyxy[3] - box_xyxy[1];
    const float area = width * height;
    return width > 0.0F && height > 0.0F && area > 0.0F && area <= kLargestFloat ? area : 0.0F;
}

// Whether two boxes of positive area have IoU > threshold.
RETINAFACE_SHARED bool overlaps(const float* box_xyxy, float area, const float* other_xyxy, float other_area,
                                float threshold) noexcept {
    const float right = other_xyxy[2] < box_xyxy[2] ? other_xyxy[2] : box_xyxy[2];
    const float bottom = other_xyxy[3] < box_xyxy[3] ? other_xyxy[3] : box_xyxy[3];
    const float left = other_xyxy[0] > box_xyxy[0] ? other_xyxy[0] : box_xyxy[0];
    const float top = other_xyxy[1] > box_xyxy[1] ? other_xyxy[1] : box_xyxy[1];
    const float width = right - left;
    const float height = bottom - top;
    if (!(width > 0.0F) || !(height > 0.0F)) return false;
    const float intersection = width * height;
    return intersection / ((area + other_area) - intersection) > threshold;
}

}  // namespace retinaface
