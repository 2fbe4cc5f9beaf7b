// The definitions of the core's operations as loops that one can read: what answers are compared with.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

namespace bench {

inline float plain_iou(const float* a, const float* b) {
    const float width = std::max(0.0F, std::min(a[2], b[2]) - std::max(a[0], b[0]));
    const float height = std::max(0.0F, std::min(a[3], b[3]) - std::max(a[1], b[1]));
    const float shared = width * height;
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared);
}

// Positions by score, highest first, equal scores by position.
inline std::vector<std::uint32_t> plain_order(const std::vector<float>& scores) {
    std::vector<std::uint32_t> order(scores.size());
    std::iota(order.begin(), order.end(), 0U);
    std::stable_sort(order.begin(), order.end(),
                     [&](std::uint32_t a, std::uint32_t b) { return scores[a] > scores[b]; });
    return order;
}

// Greedy suppression: every candidate against all that were kept before it.
inline std::vector<std::uint32_t> plain_nms(const std::vector<float>& boxes, const std::vector<float>& scores,
                                            float iou_threshold) {
    std::vector<std::uint32_t> kept;
    for (const std::uint32_t candidate : plain_order(scores)) {
        const auto suppresses = [&](std::uint32_t other) {
            return plain_iou(&boxes[std::size_t{4} * other], &boxes[std::size_t{4} * candidate]) >
                   iou_threshold;
        };
        if (std::none_of(kept.begin(), kept.end(), suppresses)) kept.push_back(candidate);
    }
    return kept;
}

}  // namespace bench
