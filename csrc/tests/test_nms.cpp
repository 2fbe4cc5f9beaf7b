#include <algorithm>
#include <limits>

#include "check.hpp"
#include "kernels/kernels.hpp"
#include "retinaface/nms.hpp"

namespace {

using namespace retinaface;

// The definition: every kept box against every candidate, and a stable sort.
std::vector<std::uint32_t> oracle(const std::vector<float>& boxes, const std::vector<float>& scores,
                                  double threshold, std::size_t top_k, std::size_t keep_top_k) {
    std::vector<std::uint32_t> order(scores.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::uint32_t>(i);
    std::stable_sort(order.begin(), order.end(),
                     [&](std::uint32_t a, std::uint32_t b) { return scores[a] > scores[b]; });
    if (top_k != 0 && order.size() > top_k) order.resize(top_k);
    std::vector<std::uint32_t> kept;
    for (const std::uint32_t i : order) {
        const float* const a = boxes.data() + 4 * std::size_t{i};
        bool suppressed = false;
        for (const std::uint32_t j : kept) {
            const float* const b = boxes.data() + 4 * std::size_t{j};
            const float width = std::max(0.0F, std::min(a[2], b[2]) - std::max(a[0], b[0]));
            const float height = std::max(0.0F, std::min(a[3], b[3]) - std::max(a[1], b[1]));
            const float inter = width * height;
            const float iou = inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter);
            suppressed = suppressed || static_cast<double>(iou) > threshold;
        }
        if (!suppressed) kept.push_back(i);
        if (keep_top_k != 0 && kept.size() == keep_top_k) break;
    }
    return kept;
}

struct Scene {
    const char* name;
    std::size_t n;
    float extent, smallest, largest, snap;
};

// Dense and sparse, small and large boxes, boxes on a grid (many exact ties of IoU and of score), past and
// below the count from which the grid is used.
void agrees_with_definition() {
    const Scene scenes[] = {
        {"dense", 900, 200, 5, 60, 0},
        {"sparse", 3000, 6000, 3, 40, 0},
        {"all sizes", 2500, 4000, 1, 2000, 0},
        {"on a grid", 2500, 900, 8, 24, 4},
        {"far away", 1500, 1e7F, 8, 1e4F, 0},
        {"tiny", 1500, 1e-3F, 1e-5F, 1e-4F, 0},
        {"few", 7, 50, 5, 60, 0},
        {"negative side", 1500, 3000, -4, 60, 0},
        {"subnormal areas", 1500, 1e-20F, 1e-23F, 1e-21F, 0},
    };
    for (const Scene& scene : scenes) {
        for (const double threshold : {0.0, 0.05, 0.2, 0.3, 0.4, 0.5, 0.75, 0.95, 1.0}) {
            check::Random random(scene.n + static_cast<std::uint64_t>(threshold * 100));
            std::vector<float> boxes(4 * scene.n), scores(scene.n);
            const auto snap = [&](float v) {
                return scene.snap > 0 ? std::floor(v / scene.snap) * scene.snap : v;
            };
            for (std::size_t i = 0; i < scene.n; ++i) {
                for (std::size_t axis = 0; axis < 2; ++axis) {
                    boxes[4 * i + axis] = snap(check::uniform(random, -scene.extent, scene.extent));
                    boxes[4 * i + 2 + axis] =
                        boxes[4 * i + axis] + snap(check::uniform(random, scene.smallest, scene.largest));
                }
                scores[i] = std::floor(check::uniform(random, -1, 1) * 500.0F) / 500.0F;
            }
            for (const auto& [top_k, keep_top_k] :
                 {std::pair<std::size_t, std::size_t>{0, 0}, {700, 0}, {0, 450}}) {
                NmsWorkspace workspace;
                for (int repeat = 0; repeat < 2; ++repeat) {
                    const auto kept =
                        nms(boxes.data(), scores.data(), scene.n, threshold, top_k, keep_top_k, workspace);
                    const bool as_defined = kept == oracle(boxes, scores, threshold, top_k, keep_top_k);
                    if (!as_defined) std::fprintf(stderr, "scene %s, threshold %g\n", scene.name, threshold);
                    CHECK(as_defined);
                }
            }
        }
    }
}

void ties_and_strictness() {
    NmsWorkspace workspace;
    const std::vector<float> twice{0, 0, 10, 10, 0, 0, 10, 10};
    const std::vector<float> equal{0.5F, 0.5F};
    CHECK((nms(twice.data(), equal.data(), 2, 0.4, 0, 0, workspace) == std::vector<std::uint32_t>{0}));
    CHECK(nms(twice.data(), equal.data(), 2, 1.0, 0, 0, workspace).size() == 2);
    const std::vector<float> zeros{0.0F, -0.0F};
    CHECK((nms(twice.data(), zeros.data(), 2, 1.0, 0, 0, workspace) == std::vector<std::uint32_t>{0, 1}));
    // IoU exactly 1/3 in float32 does not exceed 1/3 rounded up, and exceeds what lies below.
    const std::vector<float> third{0, 0, 10, 10, 5, 0, 15, 10};
    const std::vector<float> scores{0.9F, 0.8F};
    const double iou = static_cast<double>(50.0F / 150.0F);
    CHECK(nms(third.data(), scores.data(), 2, iou, 0, 0, workspace).size() == 2);
    CHECK(nms(third.data(), scores.data(), 2, std::nextafter(iou, 0.0), 0, 0, workspace).size() == 1);
    CHECK(nms(nullptr, nullptr, 0, 0.4, 0, 0, workspace).empty());
}

void not_finite_boxes_overlap_nothing() {
    const float inf = std::numeric_limits<float>::infinity();
    const float nan = std::nanf("");
    const std::vector<float> boxes{0,  0,  10, 10, -inf, -inf, inf, inf, nan, 0, 10,     10, 0,     0,
                                   10, 10, 10, 10, 0,    0,    0,   0,   0,   0, -3e38F, 0,  3e38F, 1};
    const std::vector<float> scores{0.9F, 0.8F, 0.7F, 0.6F, 0.5F, 0.4F, 0.3F};
    NmsWorkspace workspace;
    CHECK((nms(boxes.data(), scores.data(), 7, 0.0, 0, 0, workspace) ==
           std::vector<std::uint32_t>{0, 1, 2, 4, 5, 6}));
}

void order() {
    check::Random random(3);
    NmsWorkspace workspace;
    for (const std::size_t n : {1U, 5U, 63U, 64U, 65U, 1000U, 5000U, 20000U}) {
        for (const float range : {0.0F, 1e-6F, 1.0F, 1e30F}) {
            std::vector<float> scores(n);
            for (float& score : scores) score = check::uniform(random, -range, range);
            std::vector<std::uint32_t> expected(n);
            for (std::size_t i = 0; i < n; ++i) expected[i] = static_cast<std::uint32_t>(i);
            std::stable_sort(expected.begin(), expected.end(),
                             [&](std::uint32_t a, std::uint32_t b) { return scores[a] > scores[b]; });
            for (const std::size_t top_k : {std::size_t{0}, std::size_t{1}, n / 2, n, 2 * n}) {
                std::vector<std::uint32_t> got(n);
                const std::size_t count = sort_by_score(scores.data(), n, top_k, workspace, got.data());
                CHECK(count == (top_k == 0 ? n : std::min(n, top_k)));
                CHECK(std::equal(got.begin(), got.begin() + static_cast<std::ptrdiff_t>(count),
                                 expected.begin()));
            }
        }
    }
}

void rounding_of_thresholds() {
    for (const double threshold : {0.0, 0.02, 0.1, 0.4, 0.5, 0.6, 1.0, 1e-300}) {
        const float rounded = round_down_to_float(threshold);
        CHECK(static_cast<double>(rounded) <= threshold);
        CHECK(static_cast<double>(std::nextafter(rounded, 2.0F)) > threshold);
    }
}

void overlap_kernel_same_as_scalar() {
    check::Random random(11);
    for (std::size_t round = 0; round < 20000; ++round) {
        float x1[16] = {}, y1[16] = {}, x2[16] = {}, y2[16] = {}, area[16] = {};
        const std::size_t count = round % 17;
        const float scale = round % 3 == 0 ? 1e-18F : round % 3 == 1 ? 1.0F : 1e15F;
        for (std::size_t j = 0; j < count; ++j) {
            x1[j] = scale * check::uniform(random, 0, 20);
            y1[j] = scale * check::uniform(random, 0, 20);
            x2[j] = x1[j] + scale * check::uniform(random, 1, 20);
            y2[j] = y1[j] + scale * check::uniform(random, 1, 20);
            area[j] = (x2[j] - x1[j]) * (y2[j] - y1[j]);
        }
        const float left = scale * check::uniform(random, 0, 20);
        const float box[4] = {left, scale * 5, left + scale * 7, scale * 14};
        const float box_area = (box[2] - box[0]) * (box[3] - box[1]);
        const BoxesSoa boxes{x1, y1, x2, y2, area};
        for (const float threshold : {0.0F, 0.1F, 0.3999999F, 0.5F, 0.9F, 1.0F}) {
            CHECK(kernels().find_overlap(boxes, count, box, box_area, threshold) ==
                  kScalarKernels.find_overlap(boxes, count, box, box_area, threshold));
        }
    }
}

}  // namespace

CHECK_MAIN(agrees_with_definition, ties_and_strictness, not_finite_boxes_overlap_nothing, order,
           rounding_of_thresholds, overlap_kernel_same_as_scalar)
