#include <algorithm>
#include <limits>

#include "check.hpp"
#include "retinaface/vote.hpp"

namespace {

using namespace retinaface;

float iou(const float* a, const float* b) {
    const float width = std::max(0.0F, std::min(a[2], b[2]) - std::max(a[0], b[0]));
    const float height = std::max(0.0F, std::min(a[3], b[3]) - std::max(a[1], b[1]));
    const float inter = width * height;
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter);
}

// Each candidate is in one group, the groups partition them as the definition says, and sums are kept.
void agrees_with_definition() {
    for (const std::size_t n :
         {std::size_t{0}, std::size_t{1}, std::size_t{2}, std::size_t{33}, std::size_t{700}}) {
        for (const double threshold : {0.0, 0.3, 0.4, 1.0}) {
            check::Random random(n + static_cast<std::uint64_t>(threshold * 100));
            std::vector<float> boxes;
            std::vector<float> scores;
            std::vector<float> landmarks;
            for (std::size_t i = 0; i < n; ++i) {
                const float x = check::uniform(random, 0, 300);
                const float y = check::uniform(random, 0, 300);
                boxes.insert(boxes.end(),
                             {x, y, x + check::uniform(random, 5, 60), y + check::uniform(random, 5, 60)});
                scores.push_back(static_cast<float>(random() % 50) / 50.0F);  // ties, and zeros
                for (int k = 0; k < 10; ++k) landmarks.push_back(check::uniform(random, 0, 300));
            }
            NmsWorkspace workspace;
            const Votes votes =
                vote_boxes(boxes.data(), scores.data(), landmarks.data(), n, threshold, workspace);

            std::vector<std::size_t> left(n);
            for (std::size_t i = 0; i < n; ++i) left[i] = i;
            std::stable_sort(left.begin(), left.end(),
                             [&](std::size_t a, std::size_t b) { return scores[a] > scores[b]; });
            std::size_t group = 0;
            for (; !left.empty(); ++group) {
                if (group >= votes.scores.size()) break;
                const std::size_t first = left.front();
                double sum = 0;
                double x1 = 0;
                double nose_y = 0;
                std::int64_t members = 0;
                std::vector<std::size_t> others;
                for (const std::size_t i : left) {
                    const float overlap = iou(boxes.data() + 4 * first, boxes.data() + 4 * i);
                    if (i != first && !(overlap > 0 && static_cast<double>(overlap) >= threshold)) {
                        others.push_back(i);
                        continue;
                    }
                    const auto weight = static_cast<double>(scores[i]);
                    sum += weight;
                    x1 += weight * static_cast<double>(boxes[4 * i]);
                    nose_y += weight * static_cast<double>(landmarks[10 * i + 5]);
                    ++members;
                }
                CHECK(votes.members[group] == members);
                CHECK(votes.scores[group] == scores[first]);
                CHECK(std::abs(static_cast<double>(votes.score_sums[group]) - sum) <= 1e-6 * (1 + sum));
                const double expected_x1 = sum > 0 ? x1 / sum : static_cast<double>(boxes[4 * first]);
                const double expected_y =
                    sum > 0 ? nose_y / sum : static_cast<double>(landmarks[10 * first + 5]);
                CHECK(std::abs(static_cast<double>(votes.boxes[4 * group]) - expected_x1) <= 1e-4);
                CHECK(std::abs(static_cast<double>(votes.landmarks[10 * group + 5]) - expected_y) <= 1e-4);
                left = others;
            }
            CHECK(left.empty());
            CHECK(group == votes.scores.size());
            CHECK(votes.boxes.size() == 4 * group && votes.landmarks.size() == 10 * group);
        }
    }
}

// What is not finite or has no area joins nobody, and a lone box comes out to the last bit.
void odd_boxes_stand_alone() {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const float inf = std::numeric_limits<float>::infinity();
    const std::vector<float> boxes = {0.1F, 0, 10, 10, nan, 0, 10, 10, 0, 0, inf, 10, 5, 5, 5, 5};
    const std::vector<float> scores = {0.3F, 0.9F, 0.7F, 0.5F};
    NmsWorkspace workspace;
    const Votes votes = vote_boxes(boxes.data(), scores.data(), nullptr, 4, 0.4, workspace);
    CHECK(votes.scores.size() == 4);
    CHECK(votes.landmarks.empty());
    CHECK(std::isnan(votes.boxes[0]));
    CHECK(votes.boxes[12] == 0.1F && votes.boxes[15] == 10.0F);
    for (const std::int64_t members : votes.members) CHECK(members == 1);
}

}  // namespace

CHECK_MAIN(agrees_with_definition, odd_boxes_stand_alone)
