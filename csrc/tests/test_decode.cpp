#include <limits>

#include "check.hpp"
#include "kernels/kernels.hpp"
#include "retinaface/decode.hpp"

namespace {

using namespace retinaface;

constexpr float kInf = std::numeric_limits<float>::infinity();

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() &&
           (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

std::vector<float> random_floats(std::size_t n, float low, float high, std::uint64_t seed) {
    check::Random random(seed);
    std::vector<float> values(n);
    for (float& value : values) value = check::uniform(random, low, high);
    return values;
}

// Against the definition in double precision.
void boxes_and_landmarks() {
    for (std::size_t n = 0; n < 35; ++n) {
        const std::vector<float> deltas = random_floats(4 * n, -4, 4, n);
        const std::vector<float> points = random_floats(10 * n, -4, 4, n + 100);
        const std::vector<float> anchors = random_floats(4 * n, 1, 500, n + 200);
        std::vector<float> boxes(4 * n + 1, 7.0F);
        std::vector<float> landmarks(10 * n + 1, 7.0F);
        decode_boxes(deltas.data(), anchors.data(), n, {0.1F, 0.2F}, boxes.data());
        decode_landmarks(points.data(), anchors.data(), n, {0.1F, 0.2F}, landmarks.data());
        CHECK(boxes.back() == 7.0F && landmarks.back() == 7.0F);
        for (std::size_t i = 0; i < n; ++i) {
            for (std::size_t axis = 0; axis < 2; ++axis) {
                const double c = static_cast<double>(anchors[4 * i + axis]);
                const double s = static_cast<double>(anchors[4 * i + 2 + axis]);
                const double center = c + static_cast<double>(deltas[4 * i + axis]) * 0.1 * s;
                const double half = s * std::exp(static_cast<double>(deltas[4 * i + 2 + axis]) * 0.2) / 2;
                CHECK(std::fabs(static_cast<double>(boxes[4 * i + axis]) - (center - half)) < 2e-3);
                CHECK(std::fabs(static_cast<double>(boxes[4 * i + 2 + axis]) - (center + half)) < 2e-3);
                for (std::size_t k = 0; k < kLandmarks; ++k) {
                    const std::size_t at = 10 * i + 2 * k + axis;
                    const double expected = c + static_cast<double>(points[at]) * 0.1 * s;
                    CHECK(std::fabs(static_cast<double>(landmarks[at]) - expected) < 1e-3);
                }
            }
        }
        std::vector<float> back(4 * n);
        encode_boxes(boxes.data(), anchors.data(), n, {0.1F, 0.2F}, back.data());
        for (std::size_t i = 0; i < 4 * n; ++i) CHECK(std::fabs(back[i] - deltas[i]) < 5e-3F);
        std::vector<float> points_back(10 * n);
        encode_landmarks(landmarks.data(), anchors.data(), n, {0.1F, 0.2F}, points_back.data());
        for (std::size_t i = 0; i < 10 * n; ++i) CHECK(std::fabs(points_back[i] - points[i]) < 5e-3F);
    }
}

// exp within 2 ulp and sigmoid within 4 of the double precision functions over the whole range.
void exponential_accuracy() {
    std::vector<float> x;
    for (float value = -120.0F; value < 120.0F; value += 0.00437F) x.push_back(value);
    std::vector<float> sigmoids = x;
    kernels().sigmoid(sigmoids.data(), sigmoids.size());
    std::vector<float> deltas(4 * x.size(), 0.0F);
    std::vector<float> anchors(4 * x.size(), 0.0F);
    for (std::size_t i = 0; i < x.size(); ++i) {
        deltas[4 * i + 2] = x[i];
        anchors[4 * i + 2] = 1.0F;
    }
    std::vector<float> boxes(4 * x.size());
    decode_boxes(deltas.data(), anchors.data(), x.size(), {1.0F, 1.0F}, boxes.data());
    for (std::size_t i = 0; i < x.size(); ++i) {
        const double exact = std::exp(static_cast<double>(x[i]));
        const double got = 2.0 * static_cast<double>(boxes[4 * i + 2]);
        if (exact > 3.4028234e38) {
            CHECK(std::isinf(got));
        } else if (exact < 1.2e-38) {
            CHECK(got <= 1.2e-38);
        } else {
            CHECK(std::fabs(got - exact) <= 2.4e-7 * exact);
        }
        const double sigmoid = 1.0 / (1.0 + std::exp(-static_cast<double>(x[i])));
        CHECK(std::fabs(static_cast<double>(sigmoids[i]) - sigmoid) <= 4.8e-7 * sigmoid + 1e-37);
    }
}

void special_values() {
    std::vector<float> values{kInf, -kInf, std::nanf(""), 0.0F, -0.0F, 1000.0F, -1000.0F, 1.0F, 2.0F};
    kernels().sigmoid(values.data(), values.size());
    CHECK(values[0] == 1.0F && values[1] == 0.0F && std::isnan(values[2]) && values[3] == 0.5F &&
          values[4] == 0.5F);
    CHECK(values[5] == 1.0F && values[6] == 0.0F);

    const std::vector<float> boxes{-1, -2, 99, std::nanf(""), 3, 4, kInf, -kInf};
    std::vector<float> clipped(8);
    clip_boxes(boxes.data(), 2, {20, 10}, clipped.data());
    CHECK(clipped[0] == 0 && clipped[1] == 0 && clipped[2] == 10 && std::isnan(clipped[3]));
    CHECK(clipped[4] == 3 && clipped[5] == 4 && clipped[6] == 10 && clipped[7] == 0);
}

// The active level gives the bits of the scalar one, tails, NaN, infinities and extremes included.
void same_as_scalar() {
    for (std::size_t n = 0; n < 70; ++n) {
        std::vector<float> logits = random_floats(2 * n, -6, 6, n);
        if (n > 5) {
            logits[3] = std::nanf("");
            logits[5] = kInf;
            logits[8] = -kInf;
        }
        for (const float minimum : {-kInf, -3.0F, 0.0F, 2.5F, kInf}) {
            for (const bool probabilities : {false, true}) {
                std::vector<std::uint32_t> index(n + kScanSlack), index_scalar(n + kScanSlack);
                std::vector<float> value(n + kScanSlack), value_scalar(n + kScanSlack);
                const auto scan = probabilities ? kernels().scan_probabilities : kernels().scan_logits;
                const auto scan_scalar =
                    probabilities ? kScalarKernels.scan_probabilities : kScalarKernels.scan_logits;
                const std::size_t found = scan(logits.data(), n, minimum, 5, index.data(), value.data());
                CHECK(found ==
                      scan_scalar(logits.data(), n, minimum, 5, index_scalar.data(), value_scalar.data()));
                index.resize(found);
                index_scalar.resize(found);
                value.resize(found);
                value_scalar.resize(found);
                CHECK(index == index_scalar && same_bits(value, value_scalar));
            }
        }
        std::vector<float> sigmoids = random_floats(n, -100, 100, n + 7);
        std::vector<float> sigmoids_scalar = sigmoids;
        kernels().sigmoid(sigmoids.data(), n);
        kScalarKernels.sigmoid(sigmoids_scalar.data(), n);
        CHECK(same_bits(sigmoids, sigmoids_scalar));

        std::vector<float> deltas = random_floats(10 * n, -600, 600, n + 1);
        if (n > 2) deltas[6] = kInf;
        const std::vector<float> anchors = random_floats(4 * n, 1, 1000, n + 2);
        std::vector<float> out(10 * n), out_scalar(10 * n);
        kernels().decode_landmarks(deltas.data(), anchors.data(), n, {0.1F, 0.2F}, out.data());
        kScalarKernels.decode_landmarks(deltas.data(), anchors.data(), n, {0.1F, 0.2F}, out_scalar.data());
        CHECK(same_bits(out, out_scalar));
        kernels().decode_boxes(deltas.data(), anchors.data(), n, {0.1F, 0.2F}, out.data());
        kScalarKernels.decode_boxes(deltas.data(), anchors.data(), n, {0.1F, 0.2F}, out_scalar.data());
        CHECK(same_bits(out, out_scalar));
    }
}

}  // namespace

CHECK_MAIN(boxes_and_landmarks, exponential_accuracy, special_values, same_as_scalar)
