// The AVX2 kernels. Compiled with -mavx2: nothing but intrinsics, constants and helpers of this file may be
// used, for an inline function shared with a baseline file could end up as one AVX copy for both. No fused
// multiply-add: the bits must be those of the scalar kernels.
#include <immintrin.h>

#include "kernels/exp_constants.hpp"
#include "kernels/kernels.hpp"

namespace retinaface {

namespace {

constexpr std::size_t kLanes = 8;

// For each mask of 8 lanes, the numbers of its set lanes in order: the shuffle that moves them to the front.
struct CompressTable {
    std::uint8_t lanes[256][kLanes];
};

constexpr CompressTable make_compress_table() noexcept {
    CompressTable table{};
    for (std::size_t mask = 0; mask < 256; ++mask) {
        std::size_t count = 0;
        for (std::size_t lane = 0; lane < kLanes; ++lane) {
            if ((mask >> lane & 1U) != 0) table.lanes[mask][count++] = static_cast<std::uint8_t>(lane);
        }
    }
    return table;
}

constexpr CompressTable kCompress = make_compress_table();

__m256 exponential(__m256 x) noexcept {
    const __m256 clamped =
        _mm256_min_ps(_mm256_max_ps(x, _mm256_set1_ps(kExpUnderflow)), _mm256_set1_ps(kExpOverflow));
    const __m256 magic = _mm256_set1_ps(kRoundMagic);
    const __m256 n =
        _mm256_sub_ps(_mm256_add_ps(_mm256_mul_ps(clamped, _mm256_set1_ps(kLog2E)), magic), magic);
    const __m256 reduced = _mm256_sub_ps(clamped, _mm256_mul_ps(n, _mm256_set1_ps(kLn2High)));
    const __m256 r = _mm256_sub_ps(reduced, _mm256_mul_ps(n, _mm256_set1_ps(kLn2Low)));
    __m256 p = _mm256_set1_ps(kExpC0);
    p = _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(kExpC1));
    p = _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(kExpC2));
    p = _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(kExpC3));
    p = _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(kExpC4));
    p = _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(kExpC5));
    const __m256 y =
        _mm256_add_ps(_mm256_add_ps(_mm256_mul_ps(p, _mm256_mul_ps(r, r)), r), _mm256_set1_ps(1.0F));
    const __m256i exponent = _mm256_cvtps_epi32(n);
    const __m256i half = _mm256_srai_epi32(exponent, 1);
    const __m256i rest = _mm256_sub_epi32(exponent, half);
    const __m256i bias = _mm256_set1_epi32(127);
    const __m256 scale_half = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
    const __m256 scale_rest = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
    __m256 result = _mm256_mul_ps(_mm256_mul_ps(y, scale_half), scale_rest);
    const __m256 over = _mm256_cmp_ps(x, _mm256_set1_ps(kExpOverflow), _CMP_GT_OQ);
    const __m256 under = _mm256_cmp_ps(x, _mm256_set1_ps(kExpUnderflow), _CMP_LT_OQ);
    const __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
    const __m256 infinity = _mm256_castsi256_ps(_mm256_set1_epi32(0x7F800000));
    result = _mm256_blendv_ps(result, infinity, over);
    result = _mm256_andnot_ps(under, result);
    return _mm256_blendv_ps(result, x, nan);
}

// Of a mask that is not 0.
unsigned lowest_bit(unsigned mask) noexcept {
    return static_cast<unsigned>(_mm_popcnt_u32((mask & (~mask + 1U)) - 1U));
}

// Appends the lanes of `values` that `mask` selects, and their indices, in lane order.
std::size_t append(unsigned mask, __m256 values, std::uint32_t first, std::uint32_t* index,
                   float* value) noexcept {
    const __m128i packed = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(kCompress.lanes[mask]));
    const __m256i lanes = _mm256_cvtepu8_epi32(packed);
    const __m256i indices = _mm256_add_epi32(lanes, _mm256_set1_epi32(static_cast<int>(first)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(index), indices);
    _mm256_storeu_ps(value, _mm256_permutevar8x32_ps(values, lanes));
    return static_cast<std::size_t>(_mm_popcnt_u32(mask));
}

// Of 8 pairs, the face value (less the background value, for logits), with lanes in the order 0 1 4 5 2 3
// 6 7.
template <bool kLogits>
__m256 face_values(const float* pairs) noexcept {
    const __m256 low = _mm256_loadu_ps(pairs);
    const __m256 high = _mm256_loadu_ps(pairs + kLanes);
    const __m256 face = _mm256_shuffle_ps(low, high, 0xDD);
    if (!kLogits) return face;
    return _mm256_sub_ps(face, _mm256_shuffle_ps(low, high, 0x88));
}

__m256 in_order(__m256 values) noexcept {
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(values), 0xD8));
}

template <bool kLogits>
std::size_t scan(const float* pairs, std::size_t n, float minimum, std::uint32_t first_index,
                 std::uint32_t* index, float* value) noexcept {
    const __m256 bound = _mm256_set1_ps(minimum);
    std::size_t found = 0;
    std::size_t i = 0;
    // Most anchors are background: four vectors are asked at once, and looked at one by one only if one has a
    // face.
    for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
        __m256 values[4];
        __m256 any = _mm256_setzero_ps();
        for (std::size_t v = 0; v < 4; ++v) {
            values[v] = face_values<kLogits>(pairs + 2 * (i + v * kLanes));
            any = _mm256_or_ps(any, _mm256_cmp_ps(values[v], bound, _CMP_GT_OQ));
        }
        if (_mm256_testz_ps(any, any) != 0) continue;
        for (std::size_t v = 0; v < 4; ++v) {
            const __m256 ordered = in_order(values[v]);
            const auto mask =
                static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(ordered, bound, _CMP_GT_OQ)));
            found += append(mask, ordered, first_index + static_cast<std::uint32_t>(i + v * kLanes),
                            index + found, value + found);
        }
    }
    for (; i < n; ++i) {
        const float candidate = kLogits ? pairs[2 * i + 1] - pairs[2 * i] : pairs[2 * i + 1];
        if (candidate > minimum) {
            index[found] = first_index + static_cast<std::uint32_t>(i);
            value[found] = candidate;
            ++found;
        }
    }
    return found;
}

std::size_t scan_logits(const float* pairs, std::size_t n, float minimum, std::uint32_t first_index,
                        std::uint32_t* index, float* value) noexcept {
    return scan<true>(pairs, n, minimum, first_index, index, value);
}

std::size_t scan_probabilities(const float* pairs, std::size_t n, float minimum, std::uint32_t first_index,
                               std::uint32_t* index, float* value) noexcept {
    return scan<false>(pairs, n, minimum, first_index, index, value);
}

void sigmoid8(const float* in, float* out) noexcept {
    const __m256 one = _mm256_set1_ps(1.0F);
    const __m256 negated = _mm256_xor_ps(_mm256_loadu_ps(in), _mm256_set1_ps(-0.0F));
    _mm256_storeu_ps(out, _mm256_div_ps(one, _mm256_add_ps(one, exponential(negated))));
}

void sigmoid(float* values, std::size_t n) noexcept {
    std::size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) sigmoid8(values + i, values + i);
    if (i == n) return;
    float rest[kLanes] = {};
    for (std::size_t k = 0; i + k < n; ++k) rest[k] = values[i + k];
    sigmoid8(rest, rest);
    for (std::size_t k = 0; i + k < n; ++k) values[i + k] = rest[k];
}

// Four rows at a time. Two rows fill a vector; the shuffles bring the centres of four rows into one vector
// and their sizes into another, so that every lane of the exponential is used.
//
// Returns lanes that are NaN where a coordinate is not finite: NaN and infinity times zero are NaN.
__m256 decode_4_boxes(const float* deltas, const float* anchors, __m256 center_variance, __m256 size_variance,
                      float* boxes) noexcept {
    const __m256 delta_01 = _mm256_loadu_ps(deltas);
    const __m256 delta_23 = _mm256_loadu_ps(deltas + kLanes);
    const __m256 anchor_01 = _mm256_loadu_ps(anchors);
    const __m256 anchor_23 = _mm256_loadu_ps(anchors + kLanes);
    const __m256 delta_center = _mm256_shuffle_ps(delta_01, delta_23, 0x44);
    const __m256 delta_size = _mm256_shuffle_ps(delta_01, delta_23, 0xEE);
    const __m256 anchor_center = _mm256_shuffle_ps(anchor_01, anchor_23, 0x44);
    const __m256 anchor_size = _mm256_shuffle_ps(anchor_01, anchor_23, 0xEE);
    const __m256 center = _mm256_add_ps(
        anchor_center, _mm256_mul_ps(_mm256_mul_ps(delta_center, center_variance), anchor_size));
    const __m256 size = _mm256_mul_ps(anchor_size, exponential(_mm256_mul_ps(delta_size, size_variance)));
    const __m256 half = _mm256_mul_ps(size, _mm256_set1_ps(0.5F));
    const __m256 low = _mm256_sub_ps(center, half);
    const __m256 high = _mm256_add_ps(center, half);
    _mm256_storeu_ps(boxes, _mm256_shuffle_ps(low, high, 0x44));
    _mm256_storeu_ps(boxes + kLanes, _mm256_shuffle_ps(low, high, 0xEE));
    const __m256 zero = _mm256_setzero_ps();
    return _mm256_add_ps(_mm256_mul_ps(low, zero), _mm256_mul_ps(high, zero));
}

bool decode_boxes(const float* deltas, const float* anchors, std::size_t n, Variances variances,
                  float* boxes) noexcept {
    const __m256 center_variance = _mm256_set1_ps(variances.center);
    const __m256 size_variance = _mm256_set1_ps(variances.size);
    __m256 probe = _mm256_setzero_ps();
    std::size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        probe = _mm256_add_ps(probe, decode_4_boxes(deltas + 4 * i, anchors + 4 * i, center_variance,
                                                    size_variance, boxes + 4 * i));
    }
    if (i < n) {
        float rest_deltas[16] = {};
        float rest_anchors[16] = {};
        float rest_boxes[16];
        const std::size_t rest = 4 * (n - i);
        for (std::size_t k = 0; k < rest; ++k) {
            rest_deltas[k] = deltas[4 * i + k];
            rest_anchors[k] = anchors[4 * i + k];
        }
        probe = _mm256_add_ps(
            probe, decode_4_boxes(rest_deltas, rest_anchors, center_variance, size_variance, rest_boxes));
        for (std::size_t k = 0; k < rest; ++k) boxes[4 * i + k] = rest_boxes[k];
    }
    return _mm256_movemask_ps(_mm256_cmp_ps(probe, probe, _CMP_UNORD_Q)) == 0;
}

void decode_landmarks(const float* deltas, const float* anchors, std::size_t n, Variances variances,
                      float* landmarks) noexcept {
    const __m256 variance = _mm256_set1_ps(variances.center);
    const __m128 variance_last = _mm_set1_ps(variances.center);
    for (std::size_t i = 0; i < n; ++i) {
        const __m128 anchor = _mm_loadu_ps(anchors + 4 * i);
        const __m128 center = _mm_movelh_ps(anchor, anchor);
        const __m128 size = _mm_movehl_ps(anchor, anchor);
        const float* const in = deltas + kLandmarkFloats * i;
        float* const out = landmarks + kLandmarkFloats * i;
        const __m256 first_four = _mm256_add_ps(
            _mm256_set_m128(center, center),
            _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(in), variance), _mm256_set_m128(size, size)));
        const __m128 last_delta =
            _mm_castsi128_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(in + kLanes)));
        const __m128 last = _mm_add_ps(center, _mm_mul_ps(_mm_mul_ps(last_delta, variance_last), size));
        _mm256_storeu_ps(out, first_four);
        _mm_storel_epi64(reinterpret_cast<__m128i*>(out + kLanes), _mm_castps_si128(last));
    }
}

std::size_t find_overlap(const BoxesSoa& boxes, std::size_t count, const float* box, float area,
                         float threshold) noexcept {
    const __m256 left = _mm256_broadcast_ss(box);
    const __m256 top = _mm256_broadcast_ss(box + 1);
    const __m256 right = _mm256_broadcast_ss(box + 2);
    const __m256 bottom = _mm256_broadcast_ss(box + 3);
    const __m256 areas = _mm256_set1_ps(area);
    const __m256 zero = _mm256_setzero_ps();
    const __m256 bound = _mm256_set1_ps(threshold);
    const __m256 loose_bound = _mm256_set1_ps(loose_iou_bound(threshold, area));
    for (std::size_t j = 0; j < count; j += kLanes) {
        const __m256 width = _mm256_sub_ps(_mm256_min_ps(_mm256_loadu_ps(boxes.x2 + j), right),
                                           _mm256_max_ps(_mm256_loadu_ps(boxes.x1 + j), left));
        const __m256 height = _mm256_sub_ps(_mm256_min_ps(_mm256_loadu_ps(boxes.y2 + j), bottom),
                                            _mm256_max_ps(_mm256_loadu_ps(boxes.y1 + j), top));
        const __m256 intersection = _mm256_mul_ps(_mm256_max_ps(width, zero), _mm256_max_ps(height, zero));
        const __m256 unions =
            _mm256_sub_ps(_mm256_add_ps(areas, _mm256_loadu_ps(boxes.area + j)), intersection);
        const __m256 near = _mm256_cmp_ps(intersection, _mm256_mul_ps(unions, loose_bound), _CMP_GT_OQ);
        if (_mm256_testz_ps(near, near) != 0) continue;
        const __m256 over = _mm256_cmp_ps(_mm256_div_ps(intersection, unions), bound, _CMP_GT_OQ);
        const auto mask = static_cast<unsigned>(_mm256_movemask_ps(over));
        if (mask != 0) return j + static_cast<std::size_t>(lowest_bit(mask));
    }
    return count;
}

}  // namespace

const Kernels kAvx2Kernels = {scan_logits,  scan_probabilities, sigmoid,
                              decode_boxes, decode_landmarks,   find_overlap};

}  // namespace retinaface
