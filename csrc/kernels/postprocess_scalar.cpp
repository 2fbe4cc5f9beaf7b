// The scalar kernels: the definition that every other level must match bit for bit.
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/exp_constants.hpp"
#include "kernels/kernels.hpp"

namespace retinaface {

namespace {

float power_of_two(int exponent) noexcept {
    const std::uint32_t bits = static_cast<std::uint32_t>(exponent + 127) << 23U;
    float value = 0.0F;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

float exponential(float x) noexcept {
    if (x != x) return x;
    if (x > kExpOverflow) return std::numeric_limits<float>::infinity();
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

std::size_t scan_logits(const float* pairs, std::size_t n, float minimum, std::uint32_t first_index,
                        std::uint32_t* index, float* value) noexcept {
    std::size_t found = 0;
    for (std::size_t i = 0; i < n; ++i) {
        const float difference = pairs[2 * i + 1] - pairs[2 * i];
        if (difference > minimum) {
            index[found] = first_index + static_cast<std::uint32_t>(i);
            value[found] = difference;
            ++found;
        }
    }
    return found;
}

std::size_t scan_probabilities(const float* pairs, std::size_t n, float minimum, std::uint32_t first_index,
                               std::uint32_t* index, float* value) noexcept {
    std::size_t found = 0;
    for (std::size_t i = 0; i < n; ++i) {
        const float probability = pairs[2 * i + 1];
        if (probability > minimum) {
            index[found] = first_index + static_cast<std::uint32_t>(i);
            value[found] = probability;
            ++found;
        }
    }
    return found;
}

void sigmoid(float* values, std::size_t n) noexcept {
    for (std::size_t i = 0; i < n; ++i) values[i] = 1.0F / (1.0F + exponential(-values[i]));
}

bool decode_boxes(const float* deltas, const float* anchors, std::size_t n, Variances variances,
                  float* boxes) noexcept {
    bool finite = true;
    for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t axis = 0; axis < 2; ++axis) {
            const std::size_t low = 4 * i + axis;
            const std::size_t high = low + 2;
            const float center = anchors[low] + (deltas[low] * variances.center) * anchors[high];
            const float half = (anchors[high] * exponential(deltas[high] * variances.size)) * 0.5F;
            boxes[low] = center - half;
            boxes[high] = center + half;
            finite = finite && std::isfinite(boxes[low]) && std::isfinite(boxes[high]);
        }
    }
    return finite;
}

void decode_landmarks(const float* deltas, const float* anchors, std::size_t n, Variances variances,
                      float* landmarks) noexcept {
    for (std::size_t i = 0; i < n; ++i) {
        const float* const anchor = anchors + 4 * i;
        for (std::size_t k = 0; k < kLandmarkFloats; ++k) {
            const std::size_t at = kLandmarkFloats * i + k;
            landmarks[at] = anchor[k % 2] + (deltas[at] * variances.center) * anchor[k % 2 + 2];
        }
    }
}

std::uint32_t hint_coordinate(float value) noexcept {
    const float above = value > -kHintFarthestCell ? value : -kHintFarthestCell;
    const float near = above < kHintFarthestCell ? above : kHintFarthestCell;
    return static_cast<std::uint32_t>(static_cast<std::int32_t>(near));
}

void measure_boxes(const float* boxes, std::size_t n, float* area, std::uint32_t* cell) noexcept {
    for (std::size_t i = 0; i < n; ++i) {
        const float* const box = boxes + 4 * i;
        const float width = box[2] - box[0];
        const float height = box[3] - box[1];
        const float product = width * height;
        area[i] = 0.0F;
        cell[i] = 0;
        const bool valid =
            width > 0.0F && height > 0.0F && product > 0.0F && product <= std::numeric_limits<float>::max();
        if (!valid) continue;
        area[i] = product;
        std::uint32_t bits = 0;
        std::memcpy(&bits, &width, sizeof bits);
        std::uint32_t exponent = bits >> 23U;
        if (exponent < kHintLowestExponent) exponent = kHintLowestExponent;
        if (exponent > kHintHighestExponent) exponent = kHintHighestExponent;
        const float half_inverse = power_of_two(126 - static_cast<int>(exponent));
        const std::uint32_t column = hint_coordinate((box[0] + box[2]) * half_inverse);
        const std::uint32_t row = hint_coordinate((box[1] + box[3]) * half_inverse);
        cell[i] = (column * kHintColumnFactor + row * kHintRowFactor + exponent * kHintExponentFactor) >>
                  (32U - kHintBits);
    }
}

std::size_t find_overlap(const BoxesSoa& boxes, std::size_t count, const float* box, float area,
                         float threshold) noexcept {
    for (std::size_t j = 0; j < count; ++j) {
        const float right = boxes.x2[j] < box[2] ? boxes.x2[j] : box[2];
        const float bottom = boxes.y2[j] < box[3] ? boxes.y2[j] : box[3];
        const float left = boxes.x1[j] > box[0] ? boxes.x1[j] : box[0];
        const float top = boxes.y1[j] > box[1] ? boxes.y1[j] : box[1];
        const float width = right - left;
        const float height = bottom - top;
        if (!(width > 0.0F) || !(height > 0.0F)) continue;
        const float intersection = width * height;
        const float iou = intersection / ((area + boxes.area[j]) - intersection);
        if (iou > threshold) return j;
    }
    return count;
}

}  // namespace

const Kernels kScalarKernels = {scan_logits,      scan_probabilities, sigmoid,     decode_boxes,
                                decode_landmarks, measure_boxes,      find_overlap};

}  // namespace retinaface
