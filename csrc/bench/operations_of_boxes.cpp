// Suppression, matching and voting: what compares boxes with boxes.
#include <cmath>

#include "operations.hpp"
#include "plain_loops.hpp"
#include "retinaface/matching.hpp"
#include "retinaface/nms.hpp"
#include "retinaface/vote.hpp"

namespace bench {

namespace {

using namespace retinaface;

constexpr float kIouThreshold = 0.4F;

// Boxes of 8 to 64 pixels on a square, several close together for each face, with scores.
struct Crowd {
    Crowd(std::size_t faces, std::size_t per_face, float side, std::uint64_t seed) {
        check::Random random(seed);
        for (std::size_t face = 0; face < faces; ++face) {
            const float x = check::uniform(random, 0, side);
            const float y = check::uniform(random, 0, side);
            const float size = check::uniform(random, 8, 64);
            for (std::size_t i = 0; i < per_face; ++i) {
                const float left = x + check::uniform(random, -0.1F, 0.1F) * size;
                const float top = y + check::uniform(random, -0.1F, 0.1F) * size;
                boxes.insert(boxes.end(), {left, top, left + size, top + 1.3F * size});
                scores.push_back(check::uniform(random, 0.02F, 1));
            }
        }
    }

    std::vector<float> boxes;
    std::vector<float> scores;
};

class Suppression final : public Operation {
  public:
    explicit Suppression(Crowd crowd) : crowd_(std::move(crowd)) {}

    void run() override {
        kept_ = nms(crowd_.boxes.data(), crowd_.scores.data(), items(), static_cast<double>(kIouThreshold), 0,
                    0, workspace_);
    }

    void check() const override { CHECK(kept_ == plain_nms(crowd_.boxes, crowd_.scores, kIouThreshold)); }

    [[nodiscard]] std::size_t items() const override { return crowd_.scores.size(); }
    [[nodiscard]] std::uint64_t hash() const override { return hash_of(kept_); }

  private:
    Crowd crowd_;
    NmsWorkspace workspace_;
    std::vector<std::uint32_t> kept_;
};

class Matching final : public Operation {
  public:
    explicit Matching(std::uint64_t seed) {
        check::Random random(seed);
        for (std::size_t picture = 0; picture < kPictures; ++picture) {
            for (std::vector<double>* const boxes : {&predictions_, &truth_}) {
                for (std::size_t i = 0; i < (boxes == &truth_ ? kFaces : kPredictions); ++i) {
                    const auto x = static_cast<double>(check::uniform(random, 0, 500));
                    const auto y = static_cast<double>(check::uniform(random, 0, 500));
                    const auto size = static_cast<double>(check::uniform(random, 10, 80));
                    boxes->insert(boxes->end(), {x, y, x + size, y + size});
                }
            }
        }
        for (std::size_t picture = 0; picture <= kPictures; ++picture) {
            prediction_offsets_.push_back(picture * kPredictions);
            truth_offsets_.push_back(picture * kFaces);
        }
    }

    void run() override {
        match_boxes({predictions_.data(), prediction_offsets_.data()}, {truth_.data(), truth_offsets_.data()},
                    kPictures, best_.data(), overlaps_.data());
    }

    void check() const override {
        for (std::size_t i = 0; i < best_.size(); ++i) {
            const double* const a = &predictions_[4 * i];
            std::size_t best = i / kPredictions * kFaces;
            double most = 0.0;
            for (std::size_t j = best; j < (i / kPredictions + 1) * kFaces; ++j) {
                const double* const b = &truth_[4 * j];
                const double width = std::max(0.0, std::min(a[2], b[2]) - std::max(a[0], b[0]) + 1.0);
                const double height = std::max(0.0, std::min(a[3], b[3]) - std::max(a[1], b[1]) + 1.0);
                const double areas =
                    (a[2] - a[0] + 1.0) * (a[3] - a[1] + 1.0) + (b[2] - b[0] + 1.0) * (b[3] - b[1] + 1.0);
                const double overlap = width * height / (areas - width * height);
                if (overlap > most) {
                    most = overlap;
                    best = j;
                }
            }
            CHECK(best_[i] == static_cast<std::int64_t>(best));
            CHECK(std::abs(overlaps_[i] - most) <= 1e-12);
        }
    }

    [[nodiscard]] std::size_t items() const override { return kPictures * kPredictions * kFaces; }
    [[nodiscard]] std::uint64_t hash() const override { return hash_of(overlaps_, hash_of(best_)); }

  private:
    static constexpr std::size_t kPictures = 20;
    static constexpr std::size_t kPredictions = 200;
    static constexpr std::size_t kFaces = 30;
    std::vector<double> predictions_;
    std::vector<double> truth_;
    std::vector<std::size_t> prediction_offsets_;
    std::vector<std::size_t> truth_offsets_;
    std::vector<std::int64_t> best_ = std::vector<std::int64_t>(kPictures * kPredictions);
    std::vector<double> overlaps_ = std::vector<double>(kPictures * kPredictions);
};

class Voting final : public Operation {
  public:
    explicit Voting(std::uint64_t seed) {
        check::Random random(seed);
        for (std::size_t i = 0; i < 10 * items(); ++i) landmarks_.push_back(check::uniform(random, 0, 600));
    }

    void run() override {
        votes_ = vote_boxes(crowd_.boxes.data(), crowd_.scores.data(), landmarks_.data(), items(),
                            static_cast<double>(kIouThreshold), workspace_);
    }

    void check() const override {
        std::vector<std::uint32_t> left = plain_order(crowd_.scores);
        std::size_t group = 0;
        for (; !left.empty() && group < votes_.scores.size(); ++group) {
            const std::uint32_t first = left.front();
            std::vector<std::uint32_t> others;
            std::vector<double> sums(14, 0.0);
            double weights = 0.0;
            std::int64_t members = 0;
            for (const std::uint32_t i : left) {
                const float* const box = &crowd_.boxes[std::size_t{4} * i];
                if (i != first && plain_iou(&crowd_.boxes[std::size_t{4} * first], box) < kIouThreshold) {
                    others.push_back(i);
                    continue;
                }
                const auto weight = static_cast<double>(crowd_.scores[i]);
                for (std::size_t c = 0; c < 4; ++c) sums[c] += weight * static_cast<double>(box[c]);
                for (std::size_t c = 0; c < 10; ++c) {
                    sums[4 + c] += weight * static_cast<double>(landmarks_[std::size_t{10} * i + c]);
                }
                weights += weight;
                ++members;
            }
            CHECK(votes_.members[group] == members);
            CHECK(votes_.scores[group] == crowd_.scores[first]);
            for (std::size_t c = 0; c < 14; ++c) {
                const float found =
                    c < 4 ? votes_.boxes[4 * group + c] : votes_.landmarks[10 * group + c - 4];
                CHECK(std::abs(static_cast<double>(found) - sums[c] / weights) <= 1e-3);
            }
            left = std::move(others);
        }
        CHECK(left.empty() && group == votes_.scores.size());
    }

    [[nodiscard]] std::size_t items() const override { return crowd_.scores.size(); }
    [[nodiscard]] std::uint64_t hash() const override {
        return hash_of(votes_.landmarks, hash_of(votes_.boxes, hash_of(votes_.members)));
    }

  private:
    Crowd crowd_{60, 10, 600, 9};
    std::vector<float> landmarks_;
    NmsWorkspace workspace_;
    Votes votes_;
};

}  // namespace

// A few kept boxes, with which everyone is compared.
std::unique_ptr<Operation> make_nms_crowd() { return std::make_unique<Suppression>(Crowd(100, 20, 1000, 6)); }
// More than kNmsGridFrom kept boxes, most of them far apart: the grid.
std::unique_ptr<Operation> make_nms_sparse() {
    return std::make_unique<Suppression>(Crowd(10000, 1, 4000, 7));
}
std::unique_ptr<Operation> make_matching() { return std::make_unique<Matching>(8); }
std::unique_ptr<Operation> make_vote() { return std::make_unique<Voting>(10); }

}  // namespace bench
