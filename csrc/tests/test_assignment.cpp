#include "retinaface/assignment.hpp"

#include <algorithm>
#include <limits>
#include <vector>

#include "check.hpp"
#include "retinaface/nms.hpp"

namespace {

using namespace retinaface;
using Rows = std::vector<std::int64_t>;
using Flags = std::vector<unsigned char>;

constexpr AssignmentThresholds kUsual{0.35F, 0.35F, true, 0.0F};

Rows assign(const std::vector<float>& anchors, const std::vector<float>& faces, const Flags& ignored,
            const AssignmentThresholds& thresholds) {
    static AssignmentWorkspace workspace;  // with what earlier calls left
    const std::size_t n = anchors.size() / 4;
    // A value that must be gone afterwards, and one more that must stay.
    Rows assigned(n + 1, -7);
    assign_anchors(anchors.data(), n, faces.data(), ignored.empty() ? nullptr : ignored.data(),
                   faces.size() / 4, thresholds, workspace, assigned.data());
    CHECK(assigned[n] == -7);
    assigned.pop_back();
    CHECK(std::count(assigned.begin(), assigned.end(), -7) == 0);
    return assigned;
}

// From the whole table of overlaps, as box_iou gives it.
Rows by_definition(const std::vector<float>& anchors, const std::vector<float>& faces, const Flags& ignored,
                   const AssignmentThresholds& thresholds) {
    const std::size_t n = anchors.size() / 4;
    const std::size_t m = faces.size() / 4;
    std::vector<float> corners(4 * n);
    for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t axis = 0; axis < 2; ++axis) {
            corners[4 * i + axis] = anchors[4 * i + axis] - anchors[4 * i + axis + 2] / 2;
            corners[4 * i + axis + 2] = anchors[4 * i + axis] + anchors[4 * i + axis + 2] / 2;
        }
    }
    std::vector<float> iou(n * m);
    box_iou(corners.data(), n, faces.data(), m, iou.data());
    const auto out = [&](std::size_t face) { return !ignored.empty() && ignored[face] != 0; };
    Rows assigned(n, kNegativeAnchor);
    for (std::size_t i = 0; i < n; ++i) {
        float best = 0;
        std::int64_t row = kNegativeAnchor;
        for (std::size_t face = 0; face < m; ++face) {
            if (out(face) || !(iou[i * m + face] > best)) continue;
            best = iou[i * m + face];
            row = static_cast<std::int64_t>(face);
        }
        if (best >= thresholds.positive_iou) {
            assigned[i] = row;
        } else if (best >= thresholds.negative_iou) {
            assigned[i] = kIgnoredAnchor;
        }
    }
    for (std::size_t face = 0; face < m && thresholds.force; ++face) {
        std::size_t best = 0;
        for (std::size_t i = 1; i < n; ++i) {
            if (iou[i * m + face] > iou[best * m + face]) best = i;
        }
        if (out(face) || n == 0 || iou[best * m + face] <= 0) continue;
        if (iou[best * m + face] >= thresholds.force_min_iou)
            assigned[best] = static_cast<std::int64_t>(face);
    }
    for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t face = 0; face < m; ++face) {
            const float overlap = iou[i * m + face];
            if (!out(face) || !(overlap > 0) || assigned[i] != kNegativeAnchor) continue;
            float highest = 0;
            for (std::size_t other = 0; other < n; ++other) {
                highest = std::max(highest, iou[other * m + face]);
            }
            const float* const anchor = corners.data() + 4 * i;
            const float* const box = faces.data() + 4 * face;
            const float shared = (std::min(anchor[2], box[2]) - std::max(anchor[0], box[0])) *
                                 (std::min(anchor[3], box[3]) - std::max(anchor[1], box[1]));
            const float whole = (anchor[2] - anchor[0]) * (anchor[3] - anchor[1]);
            const bool is_near = overlap >= thresholds.negative_iou || overlap >= highest / 2;
            if (is_near || shared >= whole / 2) assigned[i] = kIgnoredAnchor;
        }
    }
    return assigned;
}

void by_hand() {
    const std::vector<float> anchors{5,  5, 10, 10,   // the first face itself
                                     5,  5, 20, 20,   // a quarter of it
                                     40, 5, 10, 10,   // nothing
                                     72, 5, 10, 10,   // two thirds of the second face, which it takes
                                     74, 5, 10, 10};  // three sevenths of it
    const std::vector<float> faces{0, 0, 10, 10, 65, 0, 75, 10};
    CHECK(assign(anchors, faces, {}, kUsual) == (Rows{0, -1, -1, 1, 1}));
    CHECK(assign(anchors, faces, {}, {0.5F, 0.25F, false, 0}) == (Rows{0, -2, -1, 1, -2}));
    CHECK(assign(anchors, faces, {}, {0.9F, 0.9F, true, 0}) == (Rows{0, -1, -1, 1, -1}));
    CHECK(assign(anchors, faces, {}, {0.9F, 0.9F, true, 0.7F}) == (Rows{0, -1, -1, -1, -1}));
    CHECK(assign(anchors, faces, {0, 1}, kUsual) == (Rows{0, -1, -1, -2, -2}));
    CHECK(assign(anchors, faces, {2, 255}, kUsual) == (Rows{-2, -1, -1, -2, -2}));
}

void thresholds_are_reached() {
    const std::vector<float> anchors{10, 10, 20, 20};
    const std::vector<float> faces{0, 0, 7, 20};  // an IoU of 0.35
    const float above = 0.36F;
    CHECK(assign(anchors, faces, {}, {0.35F, 0.35F, false, 0}) == (Rows{0}));
    CHECK(assign(anchors, faces, {}, {above, 0.35F, false, 0}) == (Rows{-2}));
    CHECK(assign(anchors, faces, {}, {above, above, false, 0}) == (Rows{-1}));
    CHECK(assign(anchors, faces, {}, {above, above, true, 0.35F}) == (Rows{0}));
    CHECK(assign(anchors, faces, {}, {above, above, true, above}) == (Rows{-1}));
    CHECK(assign(anchors, faces, {1}, {0.35F, 0.35F, true, 0}) == (Rows{-2}));
    // With another anchor that fits better, and less than half of either inside.
    const std::vector<float> two{10, 10, 20, 20, 4.75F, 10, 9.5F, 20};
    CHECK(assign(two, {0, 0, 7, 20}, {1}, {0.35F, 0.35F, true, 0}) == (Rows{-2, -2}));
    CHECK(assign(two, {0, 0, 7, 20}, {1}, {above, above, true, 0}) == (Rows{-1, -2}));
}

void ignored_ones_smaller_than_all_anchors() {
    // Shared: 16, 8, 7.75 and 16 of 16 pixels, the last with an anchor of twice the side; then none.
    const std::vector<float> anchors{8,  8,  16, 16, 10, 8,  16, 16, 10.0625F, 8,
                                     16, 16, 8,  8,  32, 32, 40, 40, 16,       16};
    CHECK(assign(anchors, {0, 6, 4, 10}, {1}, kUsual) == (Rows{-2, -1, -1, -1, -1}));
    // 8 / 264 is less than half of 16 / 256; what holds 9 of 16 is more.
    const std::vector<float> nearer{8, 8, 16, 16, 9.75F, 8, 16, 16};
    CHECK(assign(nearer, {0, 6, 4, 10}, {1}, kUsual) == (Rows{-2, -2}));
    CHECK(assign(nearer, {0, 6, 4, 10, 0, 0, 16, 16}, {1, 0}, kUsual) == (Rows{1, 1}));
}

void ignored_ones_larger_than_the_anchors() {
    // 100, 50 and 49 of 100 pixels inside; the second anchor is the one that fits.
    const std::vector<float> anchors{50, 50, 10, 10, 50, 50, 90, 90, 0, 50, 10, 10, -0.1F, 50, 10, 10};
    CHECK(assign(anchors, {0, 0, 100, 100}, {1}, kUsual) == (Rows{-2, -2, -2, -1}));
    CHECK(assign(anchors, {0, 0, 100, 100, 45, 45, 55, 55}, {1, 0}, kUsual) == (Rows{1, -2, -2, -1}));
}

void ties() {
    const std::vector<float> anchors{5, 5, 10, 10, 5, 5, 10, 10, 5, 5, 10, 10};
    const std::vector<float> faces{0, 0, 10, 10, 0, 0, 10, 10};
    // The first face of equals for an anchor; the first anchor of equals for a face; the last face has it.
    CHECK(assign(anchors, faces, {}, kUsual) == (Rows{1, 0, 0}));
    CHECK(assign(anchors, faces, {}, {1, 1, false, 0}) == (Rows{0, 0, 0}));
}

void nothing_at_all() {
    CHECK(assign({}, {}, {}, kUsual).empty());
    CHECK(assign({}, {0, 0, 9, 9}, {}, kUsual).empty());
    CHECK(assign({5, 5, 10, 10}, {}, {}, kUsual) == (Rows{-1}));
    CHECK(assign({5, 5, 10, 10}, {20, 20, 30, 30}, {}, kUsual) == (Rows{-1}));
    CHECK(assign({5, 5, 10, 10}, {10, 0, 20, 10}, {}, kUsual) == (Rows{-1}));  // a common side
}

void odd_anchors() {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const float far = std::numeric_limits<float>::infinity();
    // Those at both ends are found although the others have no bounds, and whichever is looked at last.
    const std::vector<float> between{far, 5, 10,  10, 5, 5,   far, far, -far, 5, 1,  1,
                                     5,   5, 0,   0,  5, 5,   -9,  -9,  5,    5, 10, nan,
                                     5,   5, nan, 10, 5, nan, 10,  10,  nan,  5, 10, 10};
    const std::vector<float> first{5, 5, 10, 10};
    const std::vector<float> second{45, 5, 10, 10};
    std::vector<float> anchors = first;
    anchors.insert(anchors.end(), between.begin(), between.end());
    anchors.insert(anchors.end(), second.begin(), second.end());
    anchors.insert(anchors.end(), between.begin(), between.end());
    Rows expected(20, -1);
    expected[0] = 0;
    expected[10] = 1;
    CHECK(assign(anchors, {0, 0, 10, 10, 40, 0, 50, 10}, {}, kUsual) == expected);
}

void random_scenes() {
    check::Random random(7);
    const auto whole = [&random](std::uint64_t below) { return static_cast<float>(random() % below); };
    std::size_t seen[3] = {};  // faces, background, neither
    for (int round = 0; round < 400; ++round) {
        const bool even = round % 2 == 0;  // whole numbers, so that there are ties
        const auto number = [&](std::uint64_t below) {
            return even ? whole(below) : check::uniform(random, 0, static_cast<float>(below));
        };
        std::vector<float> anchors;
        std::vector<float> faces;
        Flags ignored;
        const std::size_t n = random() % 140;
        const std::size_t m = random() % 9;
        for (std::size_t i = 0; i < n; ++i) {
            anchors.insert(anchors.end(), {number(60), number(60), 2 * number(10), 2 * number(10)});
        }
        for (std::size_t i = 0; i < m; ++i) {
            const float x = number(60);
            const float y = number(60);
            faces.insert(faces.end(), {x, y, x + 1 + number(20), y + 1 + number(20)});
            ignored.push_back(round % 3 == 0 && random() % 2 == 0 ? 1 : 0);
        }
        const float high = check::uniform(random, 0.2F, 0.6F);
        const AssignmentThresholds thresholds{high, round % 5 < 2 ? high : high * 0.7F, round % 7 != 0,
                                              round % 4 == 0 ? 0.3F : 0.0F};
        const Rows assigned = assign(anchors, faces, ignored, thresholds);
        CHECK(assigned == by_definition(anchors, faces, ignored, thresholds));
        for (const std::int64_t row : assigned) ++seen[row >= 0 ? 0 : -row];
    }
    CHECK(seen[0] > 250 && seen[1] > 250 && seen[2] > 250);
}

}  // namespace

CHECK_MAIN(by_hand, thresholds_are_reached, ignored_ones_smaller_than_all_anchors,
           ignored_ones_larger_than_the_anchors, ties, nothing_at_all, odd_anchors, random_scenes)
