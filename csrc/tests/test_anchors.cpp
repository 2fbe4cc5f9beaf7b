#include <cmath>
#include <limits>
#include <utility>

#include "check.hpp"
#include "retinaface/anchors.hpp"

namespace {

using namespace retinaface;

const AnchorPyramid kPyramid({{8, {16, 32}}, {16, {64, 128}}, {32, {256, 512}}});

void counts() {
    CHECK(kPyramid.num_anchors({640, 640}) == 16800);
    CHECK(kPyramid.num_anchors({1, 1}) == 6);
    CHECK(kPyramid.num_anchors({8, 9}) == 2 * 2 + 2 + 2);
    CHECK(kPyramid.num_anchors({4320, 7680}) == 2 * (540 * 960 + 270 * 480 + 135 * 240));
    std::vector<AnchorLevel> paper;
    for (std::size_t k = 0; k < 5; ++k) paper.push_back({std::size_t{4} << k, {16, 20, 25}});
    CHECK(AnchorPyramid(paper).num_anchors({640, 640}) == 102300);
}

// Every anchor against its definition, computed from the index the slow way, on sizes that divide and sizes
// that do not.
void definition() {
    for (const ImageSize image : {ImageSize{1, 1}, {33, 31}, {64, 96}, {217, 333}}) {
        std::vector<float> anchors(4 * kPyramid.num_anchors(image));
        kPyramid.generate(image, anchors.data());
        std::size_t i = 0;
        for (const AnchorLevel& level : kPyramid.levels()) {
            for (std::size_t y = 0; y * level.stride < image.height; ++y) {
                for (std::size_t x = 0; x * level.stride < image.width; ++x) {
                    for (const float size : level.sizes) {
                        const auto stride = static_cast<double>(level.stride);
                        CHECK(static_cast<double>(anchors[4 * i]) == (static_cast<double>(x) + 0.5) * stride);
                        CHECK(static_cast<double>(anchors[4 * i + 1]) ==
                              (static_cast<double>(y) + 0.5) * stride);
                        CHECK(anchors[4 * i + 2] == size && anchors[4 * i + 3] == size);
                        ++i;
                    }
                }
            }
        }
        CHECK(4 * i == anchors.size());
    }
}

AnchorPyramid one_level(std::size_t stride, std::vector<float> sizes) {
    return AnchorPyramid(std::vector<AnchorLevel>{{stride, std::move(sizes)}});
}

void bad_descriptions() {
    CHECK_THROWS(AnchorPyramid(std::vector<AnchorLevel>{}));
    CHECK_THROWS(one_level(0, {16}));
    CHECK_THROWS(one_level(8, {}));
    CHECK_THROWS(one_level(8, {-1}));
    CHECK_THROWS(one_level(8, {std::numeric_limits<float>::infinity()}));
    CHECK_THROWS(one_level(8, {std::nanf("")}));
}

}  // namespace

CHECK_MAIN(counts, definition, bad_descriptions)
