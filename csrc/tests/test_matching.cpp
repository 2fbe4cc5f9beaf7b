#include <algorithm>
#include <limits>
#include <vector>

#include "check.hpp"
#include "retinaface/matching.hpp"

namespace {

using namespace retinaface;

struct Columns {
    std::vector<double> boxes;
    std::vector<std::size_t> offsets;
    [[nodiscard]] PictureBoxes view() const { return {boxes.data(), offsets.data()}; }
};

struct Matches {
    std::vector<std::int64_t> best;
    std::vector<double> overlaps;
};

Matches match(const Columns& predictions, const Columns& truth) {
    const std::size_t n = predictions.offsets.back();
    // A value that must be gone afterwards, and one more that must stay.
    Matches found{std::vector<std::int64_t>(n + 1, -7), std::vector<double>(n + 1, -7.0)};
    match_boxes(predictions.view(), truth.view(), predictions.offsets.size() - 1, found.best.data(),
                found.overlaps.data());
    CHECK(found.best[n] == -7 && found.overlaps[n] == -7.0);
    found.best.pop_back();
    found.overlaps.pop_back();
    return found;
}

void by_hand() {
    // Three pictures: two boxes, none, one.
    const Columns truth{{0, 0, 9, 9, 5, 0, 14, 9, 100, 100, 100, 100}, {0, 2, 2, 3}};
    const Columns predictions{{0,   0,   9,   9,     // the first box itself
                               5,   0,   14,  9,     // the second, which the first overlaps by a third
                               9,   9,   18,  18,    // touches: a pixel of 10 x 10 + 10 x 10 - 1 in both
                               50,  50,  60,  60,    // nothing
                               0,   0,   9,   9,     // in a picture without boxes
                               100, 100, 100, 100,   // a box of 0 x 0 is a pixel
                               99,  100, 101, 102},  // that pixel among nine
                              {0, 4, 5, 7}};
    const Matches found = match(predictions, truth);
    CHECK(found.best == (std::vector<std::int64_t>{0, 1, 1, 0, -1, 2, 2}));
    // Of the third: 5 columns of the second box are within reach, one row of them.
    CHECK(found.overlaps == (std::vector<double>{1, 1, 6.0 / 194.0, 0, 0, 1, 1.0 / 9.0}));
}

void the_first_of_equals() {
    const Columns truth{{0, 0, 9, 9, 10, 0, 19, 9, 0, 0, 9, 9}, {0, 3}};
    const Columns predictions{{0, 0, 9, 9, 5, 0, 14, 9, 0, 0, 19, 9}, {0, 3}};
    CHECK(match(predictions, truth).best == (std::vector<std::int64_t>{0, 0, 0}));
}

void nothing_at_all() {
    CHECK(match({{}, {0}}, {{}, {0}}).best.empty());
    CHECK(match({{}, {0, 0, 0}}, {{0, 0, 1, 1}, {0, 1, 1}}).best.empty());
    CHECK(match({{0, 0, 1, 1}, {0, 1}}, {{}, {0, 0}}).best == (std::vector<std::int64_t>{-1}));
}

void odd_boxes() {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const double far = std::numeric_limits<double>::infinity();
    const Columns truth{{0, 0, 9, 9, 0, nan, 9, 9}, {0, 2}};
    const Columns predictions{{0,   0, nan, 9, -far, -far, far, far,  // without an end
                               9,   9, 0,   0,                        // turned round
                               nan, 0, 9,   9, 0,    0,    9,   9},
                              {0, 5}};
    const Matches found = match(predictions, truth);
    CHECK(found.best == (std::vector<std::int64_t>{0, 0, 0, 0, 0}));
    CHECK(found.overlaps == (std::vector<double>{0, 0, 0, 0, 1}));
}

// Against all overlaps of a picture, computed one by one and compared afterwards.
void random_pictures() {
    check::Random random(20);
    for (int round = 0; round < 50; ++round) {
        Columns sides[2] = {{{}, {0}}, {{}, {0}}};
        for (Columns& side : sides) {
            for (std::size_t picture = 0; picture < 8; ++picture) {
                const std::size_t count = random() % 20;
                for (std::size_t i = 0; i < count; ++i) {
                    const auto x = static_cast<double>(random() % 40) / 2;
                    const auto y = static_cast<double>(random() % 40) / 2;
                    side.boxes.insert(side.boxes.end(), {x, y, x + static_cast<double>(random() % 20),
                                                         y + static_cast<double>(random() % 20)});
                }
                side.offsets.push_back(side.offsets.back() + count);
            }
        }
        const Matches found = match(sides[0], sides[1]);
        for (std::size_t picture = 0; picture < 8; ++picture) {
            for (std::size_t i = sides[0].offsets[picture]; i < sides[0].offsets[picture + 1]; ++i) {
                std::vector<double> all;
                const double* const a = sides[0].boxes.data() + 4 * i;
                for (std::size_t j = sides[1].offsets[picture]; j < sides[1].offsets[picture + 1]; ++j) {
                    const double* const b = sides[1].boxes.data() + 4 * j;
                    const double shared = std::max(std::min(a[2], b[2]) - std::max(a[0], b[0]) + 1, 0.0) *
                                          std::max(std::min(a[3], b[3]) - std::max(a[1], b[1]) + 1, 0.0);
                    all.push_back(shared / ((a[2] - a[0] + 1) * (a[3] - a[1] + 1) +
                                            (b[2] - b[0] + 1) * (b[3] - b[1] + 1) - shared));
                }
                if (all.empty()) {
                    CHECK(found.best[i] == -1 && found.overlaps[i] == 0.0);
                    continue;
                }
                const auto most = std::max_element(all.begin(), all.end());
                CHECK(found.overlaps[i] == *most);
                CHECK(found.best[i] == static_cast<std::int64_t>(sides[1].offsets[picture]) +
                                           static_cast<std::int64_t>(most - all.begin()));
            }
        }
    }
}

}  // namespace

CHECK_MAIN(by_hand, the_first_of_equals, nothing_at_all, odd_boxes, random_pictures)
