#include <algorithm>
#include <thread>

#include "check.hpp"
#include "kernels/kernels.hpp"
#include "retinaface/postprocess.hpp"

namespace {

using namespace retinaface;

const AnchorPyramid kPyramid({{8, {16, 32}}, {16, {64, 128}}, {32, {256, 512}}});

struct Outputs {
    std::vector<float> scores, boxes, landmarks;
    std::vector<LevelOutputs> levels;
};

Outputs random_outputs(ImageSize image, float face_share, std::uint64_t seed) {
    check::Random random(seed);
    const std::size_t n = kPyramid.num_anchors(image);
    Outputs outputs{std::vector<float>(2 * n), std::vector<float>(4 * n), std::vector<float>(10 * n), {}};
    for (std::size_t i = 0; i < n; ++i) {
        const bool face = check::uniform(random, 0, 1) < face_share;
        outputs.scores[2 * i] = check::uniform(random, -1, 1);
        outputs.scores[2 * i + 1] = outputs.scores[2 * i] + (face ? check::uniform(random, -4, 6) : -9.0F);
    }
    for (float& value : outputs.boxes) value = check::uniform(random, -2, 2);
    for (float& value : outputs.landmarks) value = check::uniform(random, -2, 2);
    std::size_t offset = 0;
    for (std::size_t k = 0; k < kPyramid.levels().size(); ++k) {
        outputs.levels.push_back({outputs.scores.data() + 2 * offset, outputs.boxes.data() + 4 * offset,
                                  outputs.landmarks.data() + 10 * offset});
        offset += kPyramid.num_anchors(k, image);
    }
    return outputs;
}

// The same faces by the long way: all anchors, all boxes, then one operation after the other. The steps are
// checked by tests of their own; here it is that leaving out the rest changes nothing.
void same_as_step_by_step() {
    for (const ImageSize image : {ImageSize{640, 640}, {217, 333}, {1, 1}, {31, 33}, {480, 64}}) {
        for (const float share : {0.0F, 0.02F, 1.0F}) {
            for (const std::size_t top_k : {std::size_t{0}, std::size_t{100}}) {
                const Outputs outputs = random_outputs(image, share, image.height + top_k);
                const std::size_t n = kPyramid.num_anchors(image);
                PostprocessOptions options;
                options.score_threshold = 0.3;
                options.top_k = top_k;
                options.keep_top_k = 300;
                Workspace workspace;
                postprocess(kPyramid, image, outputs.levels.data(), options, workspace);

                std::vector<float> anchors(4 * n), boxes(4 * n), landmarks(10 * n);
                kPyramid.generate(image, anchors.data());
                decode_boxes(outputs.boxes.data(), anchors.data(), n, {}, boxes.data());
                decode_landmarks(outputs.landmarks.data(), anchors.data(), n, {}, landmarks.data());
                std::vector<std::uint32_t> candidates;
                std::vector<float> scores, candidate_boxes;
                for (std::size_t i = 0; i < n; ++i) {
                    float score = outputs.scores[2 * i + 1] - outputs.scores[2 * i];
                    kernels().sigmoid(&score, 1);
                    if (static_cast<double>(score) <= 0.3) continue;
                    candidates.push_back(static_cast<std::uint32_t>(i));
                    scores.push_back(score);
                    candidate_boxes.insert(candidate_boxes.end(),
                                           boxes.begin() + static_cast<std::ptrdiff_t>(4 * i),
                                           boxes.begin() + static_cast<std::ptrdiff_t>(4 * i + 4));
                }
                NmsWorkspace nms_workspace;
                const auto kept =
                    nms(candidate_boxes.data(), scores.data(), scores.size(), 0.4, top_k, 300, nms_workspace);
                CHECK(kept.size() == workspace.scores.size());
                for (std::size_t i = 0; i < std::min(kept.size(), workspace.scores.size()); ++i) {
                    const std::size_t anchor = candidates[kept[i]];
                    CHECK(std::equal(boxes.begin() + static_cast<std::ptrdiff_t>(4 * anchor),
                                     boxes.begin() + static_cast<std::ptrdiff_t>(4 * anchor + 4),
                                     workspace.boxes.begin() + static_cast<std::ptrdiff_t>(4 * i)));
                    CHECK(std::equal(landmarks.begin() + static_cast<std::ptrdiff_t>(10 * anchor),
                                     landmarks.begin() + static_cast<std::ptrdiff_t>(10 * anchor + 10),
                                     workspace.landmarks.begin() + static_cast<std::ptrdiff_t>(10 * i)));
                    CHECK(workspace.scores[i] == scores[kept[i]]);
                }
            }
        }
    }
}

// Scores that lie at the threshold: what comes out is above it, and nothing above it is lost.
void threshold_is_strict() {
    const ImageSize image{64, 64};
    const std::size_t n = kPyramid.num_anchors(image);
    for (const double threshold : {0.0, 1e-7, 0.02, 0.5, 0.6, 0.99999, 0.99999994, 1.0}) {
        Outputs outputs = random_outputs(image, 0.0F, 1);
        const double at = threshold <= 0 ? -80 : threshold >= 1 ? 20 : std::log(threshold / (1 - threshold));
        for (std::size_t i = 0; i < n; ++i) {
            outputs.scores[2 * i] = 0.0F;
            outputs.scores[2 * i + 1] =
                static_cast<float>(at) *
                (1.0F + (static_cast<float>(i) - static_cast<float>(n) / 2.0F) * 1e-7F);
        }
        PostprocessOptions options;
        options.score_threshold = threshold;
        options.nms_threshold = 1.0;
        options.top_k = options.keep_top_k = 0;
        Workspace all, above;
        postprocess(kPyramid, image, outputs.levels.data(), options, above);
        options.score_threshold = 0.0;
        postprocess(kPyramid, image, outputs.levels.data(), options, all);
        const auto expected = std::count_if(all.scores.begin(), all.scores.end(), [&](float score) {
            return static_cast<double>(score) > threshold;
        });
        CHECK(static_cast<std::size_t>(expected) == above.scores.size());
        for (const float score : above.scores) CHECK(static_cast<double>(score) > threshold);
    }
}

void batches_and_threads() {
    const ImageSize image{96, 160};
    std::vector<Outputs> images;
    std::vector<LevelOutputs> levels;
    for (std::uint64_t i = 0; i < 9; ++i) images.push_back(random_outputs(image, 0.1F, i));
    for (const Outputs& outputs : images)
        levels.insert(levels.end(), outputs.levels.begin(), outputs.levels.end());
    WorkspacePool pool;
    for (const std::size_t threads : {1U, 2U, 4U, 20U}) {
        std::vector<std::unique_ptr<Workspace>> workspaces;
        for (std::size_t i = 0; i < images.size(); ++i) workspaces.push_back(pool.acquire());
        postprocess_batch(kPyramid, image, levels.data(), images.size(), {}, threads, workspaces);
        for (std::size_t i = 0; i < images.size(); ++i) {
            Workspace single;
            postprocess(kPyramid, image, images[i].levels.data(), {}, single);
            CHECK(single.boxes == workspaces[i]->boxes && single.scores == workspaces[i]->scores);
            CHECK(single.landmarks == workspaces[i]->landmarks);
        }
        for (auto& workspace : workspaces) pool.release(std::move(workspace));
    }
    postprocess_batch(kPyramid, image, nullptr, 0, {}, 4, {});
}

// Eight callers at once, each with pictures of its own, out of one pool.
void many_callers() {
    WorkspacePool pool;
    std::vector<std::thread> threads;
    std::vector<int> wrong(8, 0);
    for (std::size_t t = 0; t < 8; ++t) {
        threads.emplace_back([&, t]() {
            const ImageSize image{64 + 8 * t, 200 - 8 * t};
            const Outputs outputs = random_outputs(image, 0.2F, t);
            Workspace expected;
            postprocess(kPyramid, image, outputs.levels.data(), {}, expected);
            for (int repeat = 0; repeat < 200; ++repeat) {
                auto workspace = pool.acquire();
                postprocess(kPyramid, image, outputs.levels.data(), {}, *workspace);
                if (workspace->boxes != expected.boxes || workspace->scores != expected.scores) ++wrong[t];
                pool.release(std::move(workspace));
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    for (const int count : wrong) CHECK(count == 0);
}

// A second call of the same size grows nothing, and no buffer grows to the size of the anchor grid.
void steady_state() {
    const ImageSize image{2160, 3840};
    const Outputs outputs = random_outputs(image, 0.0001F, 5);
    Workspace workspace;
    postprocess(kPyramid, image, outputs.levels.data(), {}, workspace);
    const std::size_t bytes = workspace.capacity_bytes();
    postprocess(kPyramid, image, outputs.levels.data(), {}, workspace);
    CHECK(workspace.capacity_bytes() == bytes);
    CHECK(bytes < kPyramid.num_anchors(image));
}

}  // namespace

CHECK_MAIN(same_as_step_by_step, threshold_is_strict, batches_and_threads, many_callers, steady_state)
