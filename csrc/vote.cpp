#include "retinaface/vote.hpp"

#include <algorithm>
#include <array>

namespace retinaface {

namespace {

constexpr std::size_t kLandmarkColumns = 10;
constexpr std::size_t kMostColumns = 4 + kLandmarkColumns;

struct Candidate {
    float x1, y1, x2, y2, area;
    std::uint32_t index;
};

float iou(const Candidate& a, const Candidate& b) noexcept {
    const float width = std::min(a.x2, b.x2) - std::max(a.x1, b.x1);
    const float height = std::min(a.y2, b.y2) - std::max(a.y1, b.y1);
    const float intersection = std::max(width, 0.0F) * std::max(height, 0.0F);
    return intersection / ((a.area + b.area) - intersection);
}

// What a group has gathered.
struct Sums {
    std::array<double, kMostColumns> weighted{};
    double scores = 0.0;
    std::int64_t members = 0;

    void add(const float* box, const float* landmarks, float score) noexcept {
        const auto weight = static_cast<double>(score);
        for (std::size_t k = 0; k < 4; ++k) weighted[k] += weight * static_cast<double>(box[k]);
        if (landmarks != nullptr) {
            for (std::size_t k = 0; k < kLandmarkColumns; ++k) {
                weighted[4 + k] += weight * static_cast<double>(landmarks[k]);
            }
        }
        scores += weight;
        ++members;
    }
};

}  // namespace

Votes vote_boxes(const float* boxes_xyxy, const float* scores, const float* landmarks, std::size_t n,
                 double iou_threshold, NmsWorkspace& workspace) {
    std::vector<std::uint32_t> order(n);
    sort_by_score(scores, n, 0, workspace, order.data());
    std::vector<Candidate> left;
    left.reserve(n);
    for (const std::uint32_t index : order) {
        const float* const box = boxes_xyxy + std::size_t{4} * index;
        left.push_back({box[0], box[1], box[2], box[3], (box[2] - box[0]) * (box[3] - box[1]), index});
    }
    Votes votes;
    for (std::size_t count = n; count > 0;) {
        const Candidate first = left[0];
        Sums sums;
        const auto join = [&](std::uint32_t index) noexcept {
            sums.add(boxes_xyxy + std::size_t{4} * index,
                     landmarks == nullptr ? nullptr : landmarks + kLandmarkColumns * index, scores[index]);
        };
        join(first.index);
        std::size_t kept = 0;
        for (std::size_t i = 1; i < count; ++i) {
            const Candidate candidate = left[i];
            const auto overlap = static_cast<double>(iou(first, candidate));
            // Without the first, a threshold of 0 would join what does not touch.
            if (overlap > 0.0 && overlap >= iou_threshold) {
                join(candidate.index);
            } else {
                left[kept++] = candidate;
            }
        }
        count = kept;
        // A lone box is its own mean, to the last bit; nothing can be weighted by zeros.
        const bool is_mean = sums.members > 1 && sums.scores > 0.0;
        const auto append = [&](std::vector<float>& values, const float* own, std::size_t columns,
                                std::size_t from) {
            for (std::size_t k = 0; k < columns; ++k) {
                values.push_back(is_mean ? static_cast<float>(sums.weighted[from + k] / sums.scores)
                                         : own[k]);
            }
        };
        append(votes.boxes, boxes_xyxy + std::size_t{4} * first.index, 4, 0);
        if (landmarks != nullptr) {
            append(votes.landmarks, landmarks + kLandmarkColumns * first.index, kLandmarkColumns, 4);
        }
        votes.scores.push_back(scores[first.index]);
        votes.score_sums.push_back(static_cast<float>(sums.scores));
        votes.members.push_back(sums.members);
    }
    return votes;
}

}  // namespace retinaface
