// The scalar kernels: the definition that every other level must match bit for bit.
#include "arithmetic.hpp"
#include "kernels/kernels.hpp"

namespace retinaface {

namespace {

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

void sigmoids(float* values, std::size_t n) noexcept {
    for (std::size_t i = 0; i < n; ++i) values[i] = sigmoid(values[i]);
}

bool decode_boxes(const float* deltas, const float* anchors, std::size_t n, Variances variances,
                  float* boxes) noexcept {
    bool finite = true;
    for (std::size_t i = 0; i < n; ++i) {
        finite = decode_box(deltas + 4 * i, anchors + 4 * i, variances, boxes + 4 * i) && finite;
    }
    return finite;
}

void decode_landmarks(const float* deltas, const float* anchors, std::size_t n, Variances variances,
                      float* landmarks) noexcept {
    for (std::size_t i = 0; i < n; ++i) {
        decode_five_landmarks(deltas + kLandmarkFloats * i, anchors + 4 * i, variances,
                              landmarks + kLandmarkFloats * i);
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
        area[i] = box_area(box);
        cell[i] = 0;
        if (area[i] == 0.0F) continue;
        std::uint32_t exponent = bits_of_float(box[2] - box[0]) >> 23U;
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
        const float other[4] = {boxes.x1[j], boxes.y1[j], boxes.x2[j], boxes.y2[j]};
        if (overlaps(box, area, other, boxes.area[j], threshold)) return j;
    }
    return count;
}

}  // namespace

const Kernels kScalarKernels = {scan_logits,      scan_probabilities, sigmoids,    decode_boxes,
                                decode_landmarks, measure_boxes,      find_overlap};

}  // namespace retinaface
