// From the raw outputs of the network to faces, in one pass.
//
// The class scores are scanned once; only anchors above the score threshold are looked at again: their boxes
// are decoded with the anchor computed from its index, ordered, suppressed, and the landmarks of the kept
// ones decoded. Nothing of the size of the anchor grid is allocated unless that many anchors pass the
// threshold.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "retinaface/anchors.hpp"
#include "retinaface/decode.hpp"
#include "retinaface/nms.hpp"
#include "retinaface/slot_pool.hpp"

namespace retinaface {

// What the network gives for one level of one image: contiguous rows, one for each anchor of the level.
struct LevelOutputs {
    const float* class_scores;     // (A, 2): background, face
    const float* box_deltas;       // (A, 4)
    const float* landmark_deltas;  // (A, 10)
};

// Where the deltas come from, if they are not all there beforehand: the network computes them for what passes
// the threshold. `anchors` are positions within the level; at most kDeltaBatch at a time.
inline constexpr std::size_t kDeltaBatch = 64;
class DeltaSource {
  public:
    DeltaSource() = default;
    DeltaSource(const DeltaSource&) = delete;
    DeltaSource& operator=(const DeltaSource&) = delete;
    virtual ~DeltaSource() = default;
    // (count, 4); the anchors are ascending.
    virtual void boxes(std::size_t level, const std::uint32_t* anchors, std::size_t count,
                       float* deltas) const noexcept = 0;
    // (count, 10); the anchors are in no order.
    virtual void landmarks(std::size_t level, const std::uint32_t* anchors, std::size_t count,
                           float* deltas) const noexcept = 0;
};

enum class ScoreKind { logits, probabilities };

struct PostprocessOptions {
    ScoreKind score_kind = ScoreKind::logits;
    Variances variances{};
    double score_threshold = 0.5;  // a face has score > threshold, within [0, 1]
    double nms_threshold = 0.4;    // IoU > threshold suppresses, within [0, 1]
    std::size_t top_k = 5000;      // candidates that enter suppression, 0: all
    std::size_t keep_top_k = 750;  // faces that leave it, 0: all
};

// A bound on the difference of the logits such that every anchor with a float32 sigmoid above the threshold
// lies above it; a few more may, and are dropped after the sigmoid.
[[nodiscard]] float logit_bound(double score_threshold) noexcept;

// Faces of one image by score, highest first, and the buffers that their computation needs. The buffers keep
// their memory from call to call. Not to be shared by two calls at the same time.
class Workspace {
  public:
    std::vector<float> boxes;      // (n, 4) xyxy, pixels of the network's input
    std::vector<float> scores;     // (n)
    std::vector<float> landmarks;  // (n, 5, 2)

    // Bytes that the buffers hold.
    [[nodiscard]] std::size_t capacity_bytes() const noexcept;

  private:
    friend void postprocess(const AnchorPyramid&, ImageSize, const float* const*, const DeltaSource&,
                            const PostprocessOptions&, Workspace&);
    std::vector<std::uint32_t> candidate_index_;
    std::vector<float> candidate_score_;
    std::vector<std::uint32_t> order_;
    std::vector<std::uint32_t> rank_;
    std::vector<float> decoded_;
    std::vector<std::uint32_t> kept_;
    NmsWorkspace nms_;
};

// Computes the faces of one image into `workspace`. `levels` holds one entry for each level of the pyramid.
//
// score = sigmoid(face logit - background logit), or the face probability as given; NaN is no candidate. Of
// the candidates the top_k with the highest score (equal scores: lower index first) are decoded; those whose
// box is not finite are dropped; the rest is suppressed. Landmarks are not checked.
void postprocess(const AnchorPyramid& pyramid, ImageSize image, const LevelOutputs* levels,
                 const PostprocessOptions& options, Workspace& workspace);

// The same where the deltas are asked for. class_scores[k] are those of level k, (A, 2).
void postprocess(const AnchorPyramid& pyramid, ImageSize image, const float* const* class_scores,
                 const DeltaSource& deltas, const PostprocessOptions& options, Workspace& workspace);

// Workspaces between calls. Every call takes its own, so that two threads never see each other's faces. A
// workspace that grew beyond a limit is freed when it comes back, and only a few are kept.
class WorkspacePool {
  public:
    [[nodiscard]] std::unique_ptr<Workspace> acquire();
    void release(std::unique_ptr<Workspace> workspace) noexcept;

  private:
    SlotPool<Workspace, 64> free_;
};

// A batch: `levels` holds the levels of image 0, then of image 1, … The images are shared out among at most
// `num_threads` threads (at least 1) of this call; the result does not depend on their number. workspaces[i]
// receives the faces of image i.
void postprocess_batch(const AnchorPyramid& pyramid, ImageSize image, const LevelOutputs* levels,
                       std::size_t batch_size, const PostprocessOptions& options, std::size_t num_threads,
                       const std::vector<std::unique_ptr<Workspace>>& workspaces);

}  // namespace retinaface
