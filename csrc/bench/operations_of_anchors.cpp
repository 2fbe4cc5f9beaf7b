// Anchors, decoding and the fused post-processing: what goes through all anchors of an image.
#include <cmath>

#include "operations.hpp"
#include "plain_loops.hpp"
#include "random_network.hpp"
#include "retinaface/anchors.hpp"
#include "retinaface/decode.hpp"
#include "retinaface/postprocess.hpp"

namespace bench {

namespace {

using namespace retinaface;

constexpr ImageSize kSquare{640, 640};
constexpr ImageSize kUltraHd{2160, 3840};

std::vector<float> anchors_of(ImageSize image) {
    const AnchorPyramid pyramid = check::pyramid();
    std::vector<float> anchors(4 * pyramid.num_anchors(image));
    pyramid.generate(image, anchors.data());
    return anchors;
}

std::vector<float> uniform(std::size_t count, float low, float high, std::uint64_t seed) {
    check::Random random(seed);
    std::vector<float> values(count);
    for (float& value : values) value = check::uniform(random, low, high);
    return values;
}

bool close(float found, double expected) {
    return std::abs(static_cast<double>(found) - expected) <= 1e-5 * (1.0 + std::abs(expected));
}

class Anchors final : public Operation {
  public:
    void run() override { pyramid_.generate(kSquare, anchors_.data()); }

    void check() const override {
        std::size_t at = 0;
        for (std::size_t k = 0; k < 3; ++k) {
            const std::size_t stride = std::size_t{8} << k;
            for (std::size_t row = 0; row < kSquare.height / stride; ++row) {
                for (std::size_t column = 0; column < kSquare.width / stride; ++column) {
                    for (const std::size_t size : {std::size_t{16} << 2 * k, std::size_t{32} << 2 * k}) {
                        const double expected[4] = {
                            (static_cast<double>(column) + 0.5) * static_cast<double>(stride),
                            (static_cast<double>(row) + 0.5) * static_cast<double>(stride),
                            static_cast<double>(size), static_cast<double>(size)};
                        for (const double value : expected)
                            CHECK(static_cast<double>(anchors_.at(at++)) == value);
                    }
                }
            }
        }
        CHECK(at == anchors_.size());
    }

    [[nodiscard]] std::size_t items() const override { return anchors_.size() / 4; }
    [[nodiscard]] std::uint64_t hash() const override { return hash_of(anchors_); }

  private:
    AnchorPyramid pyramid_ = check::pyramid();
    std::vector<float> anchors_ = std::vector<float>(4 * pyramid_.num_anchors(kSquare));
};

class DecodeBoxes final : public Operation {
  public:
    void run() override { decode_boxes(deltas_.data(), anchors_.data(), items(), {}, boxes_.data()); }

    void check() const override {
        for (std::size_t i = 0; i < items(); ++i) {
            double anchor[4];
            double delta[4];
            for (std::size_t c = 0; c < 4; ++c) {
                anchor[c] = static_cast<double>(anchors_[4 * i + c]);
                delta[c] = static_cast<double>(deltas_[4 * i + c]);
            }
            for (std::size_t c = 0; c < 2; ++c) {
                const double center = anchor[c] + delta[c] * 0.1 * anchor[2 + c];
                const double half = anchor[2 + c] * std::exp(delta[2 + c] * 0.2) / 2.0;
                CHECK(close(boxes_[4 * i + c], center - half));
                CHECK(close(boxes_[4 * i + 2 + c], center + half));
            }
        }
    }

    [[nodiscard]] std::size_t items() const override { return anchors_.size() / 4; }
    [[nodiscard]] std::uint64_t hash() const override { return hash_of(boxes_); }

  private:
    std::vector<float> anchors_ = anchors_of(kSquare);
    std::vector<float> deltas_ = uniform(anchors_.size(), -2, 2, 1);
    std::vector<float> boxes_ = std::vector<float>(anchors_.size());
};

class DecodeLandmarks final : public Operation {
  public:
    void run() override { decode_landmarks(deltas_.data(), anchors_.data(), items(), {}, landmarks_.data()); }

    void check() const override {
        for (std::size_t i = 0; i < landmarks_.size(); ++i) {
            const float* const anchor = &anchors_[4 * (i / kLandmarkFloats)];
            const std::size_t axis = i % 2;
            CHECK(close(landmarks_[i],
                        static_cast<double>(anchor[axis]) +
                            static_cast<double>(deltas_[i]) * 0.1 * static_cast<double>(anchor[2 + axis])));
        }
    }

    [[nodiscard]] std::size_t items() const override { return anchors_.size() / 4; }
    [[nodiscard]] std::uint64_t hash() const override { return hash_of(landmarks_); }

  private:
    std::vector<float> anchors_ = anchors_of(kSquare);
    std::vector<float> deltas_ = uniform(anchors_.size() / 4 * kLandmarkFloats, -2, 2, 2);
    std::vector<float> landmarks_ = std::vector<float>(deltas_.size());
};

// Raw outputs in which one of so many groups of neighbouring anchors is a face, and all of its anchors are
// candidates; the others are far below any threshold.
class Postprocess final : public Operation {
  public:
    Postprocess(ImageSize image, std::size_t every, std::uint64_t seed)
        : image_(image),
          scores_(2 * pyramid_.num_anchors(image)),
          box_deltas_(uniform(2 * scores_.size(), -2, 2, seed + 1)),
          landmark_deltas_(uniform(5 * scores_.size(), -2, 2, seed + 2)) {
        check::Random random(seed);
        bool face = false;
        for (std::size_t i = 0; i < items(); ++i) {
            if (i % kNeighbours == 0) face = random() % every == 0;
            scores_[2 * i] = check::uniform(random, -1, 1);
            scores_[2 * i + 1] =
                scores_[2 * i] + (face ? check::uniform(random, -3, 6) : check::uniform(random, -12, -8));
        }
        std::size_t offset = 0;
        for (std::size_t k = 0; k < 3; ++k) {
            levels_.push_back(
                {&scores_[2 * offset], &box_deltas_[4 * offset], &landmark_deltas_[10 * offset]});
            offset += pyramid_.num_anchors(k, image);
        }
        options_.score_threshold = kThreshold;
    }

    void run() override { postprocess(pyramid_, image_, levels_.data(), options_, workspace_); }

    // The long way: every anchor, and one operation after the other. Decoding has a check of its own.
    void check() const override {
        const std::vector<float> anchors = anchors_of(image_);
        std::vector<float> boxes(box_deltas_.size());
        std::vector<float> landmarks(landmark_deltas_.size());
        decode_boxes(box_deltas_.data(), anchors.data(), items(), {}, boxes.data());
        decode_landmarks(landmark_deltas_.data(), anchors.data(), items(), {}, landmarks.data());
        std::vector<std::size_t> candidates;
        std::vector<float> scores;
        std::vector<float> candidate_boxes;
        for (std::size_t i = 0; i < items(); ++i) {
            const float difference = scores_[2 * i + 1] - scores_[2 * i];
            const double score = 1.0 / (1.0 + std::exp(-static_cast<double>(difference)));
            if (score <= kThreshold) continue;
            candidates.push_back(i);
            scores.push_back(static_cast<float>(score));
            for (std::size_t c = 0; c < 4; ++c) candidate_boxes.push_back(boxes[4 * i + c]);
        }
        const std::vector<std::uint32_t> kept = plain_nms(candidate_boxes, scores, 0.4F);
        CHECK(!kept.empty() && kept.size() < candidates.size() && kept.size() == workspace_.scores.size());
        for (std::size_t i = 0; i < std::min(kept.size(), workspace_.scores.size()); ++i) {
            const std::size_t anchor = candidates[kept[i]];
            CHECK(close(workspace_.scores[i], static_cast<double>(scores[kept[i]])));
            for (std::size_t c = 0; c < 4; ++c) CHECK(workspace_.boxes[4 * i + c] == boxes[4 * anchor + c]);
            for (std::size_t c = 0; c < kLandmarkFloats; ++c) {
                CHECK(workspace_.landmarks[kLandmarkFloats * i + c] ==
                      landmarks[kLandmarkFloats * anchor + c]);
            }
        }
    }

    [[nodiscard]] std::size_t items() const override { return scores_.size() / 2; }
    [[nodiscard]] std::uint64_t hash() const override {
        return hash_of(workspace_.landmarks, hash_of(workspace_.boxes, hash_of(workspace_.scores)));
    }

  private:
    static constexpr double kThreshold = 0.02;
    static constexpr std::size_t kNeighbours = 16;
    ImageSize image_;
    AnchorPyramid pyramid_ = check::pyramid();
    std::vector<float> scores_;
    std::vector<float> box_deltas_;
    std::vector<float> landmark_deltas_;
    std::vector<LevelOutputs> levels_;
    PostprocessOptions options_;
    Workspace workspace_;
};

}  // namespace

std::unique_ptr<Operation> make_anchors() { return std::make_unique<Anchors>(); }
std::unique_ptr<Operation> make_decode_boxes() { return std::make_unique<DecodeBoxes>(); }
std::unique_ptr<Operation> make_decode_landmarks() { return std::make_unique<DecodeLandmarks>(); }
std::unique_ptr<Operation> make_postprocess() { return std::make_unique<Postprocess>(kSquare, 16, 3); }
std::unique_ptr<Operation> make_postprocess_scan() {
    return std::make_unique<Postprocess>(kUltraHd, 10000, 3);
}

}  // namespace bench
