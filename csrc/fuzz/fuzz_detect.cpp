// The whole way from pixels to faces, over sizes, strides, channel orders, options, numbers of threads and
// contents, with weights of every kind. Memory is the sanitizers' matter; here it is checked that the answer
// is what the header promises, and the same whichever way it is asked for.
#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "engine/denormals.hpp"
#include "expect.hpp"
#include "random_network.hpp"
#include "retinaface/engine.hpp"

namespace {

using namespace retinaface;

// Pixels of the largest image, of any shape: a run takes about a millisecond.
constexpr std::size_t kMostPixels = 1600;
constexpr std::size_t kLongestSide = 400;
constexpr std::size_t kMostThreads = 3;

enum class Weights {
    usual,
    few_faces,
    only_faces,
    huge,       // finite, and everything behind the first layers is infinite or NaN
    growing,    // outputs at the upper end of the range
    vanishing,  // denormal activations
    zero,
    not_finite,  // here and there infinite or NaN
    kMaxValue = not_finite,
};

void distort(Weights kind, check::RandomNetwork& network) {
    check::Random random(99);
    for (std::size_t i = 0; i < network.tensors.size(); ++i) {
        for (float& value : network.values(i)) {
            switch (kind) {
                case Weights::huge:
                    value *= 1e30F;
                    break;
                case Weights::growing:
                    value *= 4.0F;
                    break;
                case Weights::vanishing:
                    value *= i < 8 ? 1e-12F : 1.0F;
                    if (i % 2 == 1) value = 0.0F;
                    break;
                case Weights::zero:
                    value = 0.0F;
                    break;
                case Weights::not_finite:
                    if (random() % 4096 == 0) value = std::numeric_limits<float>::infinity();
                    if (random() % 4096 == 1) value = std::numeric_limits<float>::quiet_NaN();
                    if (random() % 4096 == 2) value = std::numeric_limits<float>::max();
                    break;
                default:
                    break;
            }
        }
    }
}

const Engine& engine_of(Weights weights, std::size_t threads) {
    constexpr auto kinds = static_cast<std::size_t>(Weights::kMaxValue) + 1;
    static std::array<std::array<std::unique_ptr<Engine>, kMostThreads>, kinds> engines;
    std::unique_ptr<Engine>& wanted = engines[static_cast<std::size_t>(weights)][threads - 1];
    if (wanted == nullptr) {
        const float face_bias =
            weights == Weights::few_faces ? -3.0F : (weights == Weights::only_faces ? 30.0F : 0.0F);
        check::RandomNetwork network(check::mobilenet(2, 64), 1, face_bias);
        distort(weights, network);
        wanted = std::make_unique<Engine>(network.tensors, NetworkOptions{check::pyramid()}, threads);
    }
    return *wanted;
}

// An image in memory of exactly its size, so that a byte too far is noticed.
struct Image {
    Image(FuzzedDataProvider& data) {
        size.height = data.ConsumeIntegralInRange<std::size_t>(1, kLongestSide);
        size.width = data.ConsumeIntegralInRange<std::size_t>(
            1, std::min(kLongestSide, std::max<std::size_t>(kMostPixels / size.height, 1)));
        const std::size_t row = 3 * size.width;
        switch (data.ConsumeIntegralInRange(0, 3)) {
            case 0:
                step = row;
                break;
            case 1:
                step = row + data.ConsumeIntegralInRange<std::size_t>(0, 70);
                break;
            case 2:  // rows that share pixels
                step = data.ConsumeIntegralInRange<std::size_t>(0, row);
                break;
            default:
                step = (row + 63) / 64 * 64;
                break;
        }
        upside_down = data.ConsumeBool();
        order = data.ConsumeBool() ? ChannelOrder::rgb : ChannelOrder::bgr;
        const std::size_t bytes = (size.height - 1) * step + row;
        pixels.reset(new std::uint8_t[bytes]);
        const bool noise = data.ConsumeBool();
        const std::vector<std::uint8_t> given = data.ConsumeRemainingBytes<std::uint8_t>();
        check::Random random(given.size());
        for (std::size_t i = 0; i < bytes; ++i) {
            const std::uint8_t pattern = given.empty() ? std::uint8_t{0} : given[i % given.size()];
            pixels[i] = noise ? static_cast<std::uint8_t>(pattern ^ (random() >> 56U)) : pattern;
        }
    }

    [[nodiscard]] ImageView view() const {
        const auto stride = static_cast<std::ptrdiff_t>(step);
        if (!upside_down) return {pixels.get(), size, stride, order};
        return {pixels.get() + (size.height - 1) * step, size, -stride, order};
    }

    ImageSize size{};
    std::size_t step = 0;
    bool upside_down = false;
    ChannelOrder order = ChannelOrder::bgr;
    std::unique_ptr<std::uint8_t[]> pixels;
};

bool same(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0 || (std::isnan(a) && std::isnan(b)); }

bool same(const std::vector<float>& a, const std::vector<float>& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](float x, float y) { return same(x, y); });
}

bool same(const Workspace& a, const Workspace& b) {
    return same(a.scores, b.scores) && same(a.boxes, b.boxes) && same(a.landmarks, b.landmarks);
}

double iou(const float* a, const float* b) {
    const auto side = [](float low, float high) { return double{high} - double{low}; };
    const double width = side(std::max(a[0], b[0]), std::min(a[2], b[2]));
    const double height = side(std::max(a[1], b[1]), std::min(a[3], b[3]));
    if (!(width > 0 && height > 0)) return 0.0;
    const double shared = width * height;
    return shared / (side(a[0], a[2]) * side(a[1], a[3]) + side(b[0], b[2]) * side(b[1], b[3]) - shared);
}

void check_promises(const Workspace& faces, const PostprocessOptions& options, std::size_t anchors) {
    const std::size_t n = faces.scores.size();
    EXPECT(faces.boxes.size() == 4 * n && faces.landmarks.size() == 10 * n);
    EXPECT(n <= anchors);
    EXPECT(options.top_k == 0 || n <= options.top_k);
    EXPECT(options.keep_top_k == 0 || n <= options.keep_top_k);
    for (std::size_t i = 0; i < n; ++i) {
        EXPECT(double{faces.scores[i]} > options.score_threshold && faces.scores[i] <= 1.0F);
        EXPECT(i == 0 || faces.scores[i - 1] >= faces.scores[i]);
    }
    for (const float side : faces.boxes) EXPECT(std::isfinite(side));
    // Where float32 is exact enough for a comparison.
    const bool small =
        std::all_of(faces.boxes.begin(), faces.boxes.end(), [](float side) { return std::abs(side) < 1e6F; });
    for (std::size_t i = 0; small && i < std::min<std::size_t>(n, 50); ++i) {
        for (std::size_t j = 0; j < i; ++j) {
            const double overlap = iou(&faces.boxes[4 * i], &faces.boxes[4 * j]);
            EXPECT(overlap <= options.nms_threshold + 1e-4);
        }
    }
}

class Raw {
  public:
    Raw(const AnchorPyramid& pyramid, ImageSize image) {
        for (std::size_t k = 0; k < 3; ++k) {
            const std::size_t anchors = pyramid.num_anchors(k, image);
            constexpr std::size_t kWidths[] = {2, 4, 10};
            for (const std::size_t width : kWidths) values_.emplace_back(anchors * width, unwritten());
            float* const last[3] = {values_[3 * k].data(), values_[3 * k + 1].data(),
                                    values_[3 * k + 2].data()};
            levels_[k] = {last[0], last[1], last[2]};
            outputs_[k] = {last[0], last[1], last[2]};
        }
    }

    [[nodiscard]] const RawLevel* levels() const { return levels_; }
    [[nodiscard]] const LevelOutputs* outputs() const { return outputs_; }
    [[nodiscard]] bool complete() const {
        const float mark = unwritten();
        for (const std::vector<float>& tensor : values_) {
            for (const float& value : tensor) {
                if (std::memcmp(&value, &mark, sizeof mark) == 0) return false;
            }
        }
        return true;
    }
    [[nodiscard]] bool is_same(const Raw& other) const {
        for (std::size_t i = 0; i < values_.size(); ++i) {
            if (!same(values_[i], other.values_[i])) return false;
        }
        return true;
    }

  private:
    // A NaN that no arithmetic gives.
    static float unwritten() {
        const std::uint32_t bits = 0x7FC5A5A5U;
        float value = 0.0F;
        std::memcpy(&value, &bits, sizeof value);
        return value;
    }

    std::vector<std::vector<float>> values_;
    RawLevel levels_[3]{};
    LevelOutputs outputs_[3]{};
};

double threshold(FuzzedDataProvider& data) {
    constexpr double kSpecial[] = {0.0, 1.0, 0.5, 0.02, 0x1p-30, 1.0 - 0x1p-30, 5e-324, 0.4};
    if (data.ConsumeBool()) return data.PickValueInArray(kSpecial);
    return data.ConsumeProbability<double>();
}

std::size_t limit(FuzzedDataProvider& data) {
    constexpr std::size_t kSpecial[] = {0, 1, 2, 750, 5000, static_cast<std::size_t>(-1)};
    if (data.ConsumeBool()) return data.PickValueInArray(kSpecial);
    return data.ConsumeIntegralInRange<std::size_t>(0, 300);
}

// The control word of the caller's floating-point unit must be as it was.
void detect(const Engine& network, const ImageView& image, const PostprocessOptions& options,
            Workspace& faces) {
#if defined(RETINAFACE_CONTROL_SSE)
    const unsigned kControl = 0xFFC0U;  // without the flags of what happened
    const unsigned before = _mm_getcsr();
#endif
    const double seconds = network.detect(image, options, faces);
    EXPECT(seconds >= 0.0);
#if defined(RETINAFACE_CONTROL_SSE)
    EXPECT((_mm_getcsr() & kControl) == (before & kControl));
#endif
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t count) {
    FuzzedDataProvider data(bytes, count);
    const auto weights = data.ConsumeEnum<Weights>();
    const auto threads = data.ConsumeIntegralInRange<std::size_t>(1, kMostThreads);
    PostprocessOptions options;
    options.score_threshold = threshold(data);
    options.nms_threshold = threshold(data);
    options.top_k = limit(data);
    options.keep_top_k = limit(data);
    const auto way = data.ConsumeIntegralInRange(0, 3);
    const auto other_threads = data.ConsumeIntegralInRange<std::size_t>(1, kMostThreads);
    const Image image(data);

    const Engine& network = engine_of(weights, threads);
    // Kept, so that what one call leaves in it meets the next one.
    static Workspace faces;
    static Workspace again;
    detect(network, image.view(), options, faces);
    check_promises(faces, options, network.anchors().num_anchors(image.size));

    const Engine& other = engine_of(weights, other_threads);
    switch (way) {
        case 0:
            detect(other, image.view(), options, again);
            break;
        case 1: {
            const Raw raw(network.anchors(), image.size);
            other.run(image.view(), raw.levels());
            EXPECT(raw.complete());
            postprocess(network.anchors(), image.size, raw.outputs(), options, again);
            break;
        }
        case 2: {
            const Raw raw(network.anchors(), image.size);
            const Raw other_raw(network.anchors(), image.size);
            network.run(image.view(), raw.levels());
            other.run(image.view(), other_raw.levels());
            EXPECT(raw.is_same(other_raw));
            postprocess(network.anchors(), image.size, raw.outputs(), options, again);
            break;
        }
        default: {  // the same pixels, packed, in the other order of channels
            const ImageView view = image.view();
            std::vector<std::uint8_t> pixels;
            for (std::size_t y = 0; y < view.size.height; ++y) {
                const std::uint8_t* const row =
                    view.pixels + static_cast<std::ptrdiff_t>(y) * view.row_stride;
                for (std::size_t x = 0; x < view.size.width; ++x) {
                    for (std::size_t c = 3; c-- > 0;) pixels.push_back(row[3 * x + c]);
                }
            }
            detect(other,
                   {pixels.data(), view.size, static_cast<std::ptrdiff_t>(3 * view.size.width),
                    view.order == ChannelOrder::rgb ? ChannelOrder::bgr : ChannelOrder::rgb},
                   options, again);
            break;
        }
    }
    EXPECT(same(faces, again));
    return 0;
}
