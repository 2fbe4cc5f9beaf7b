// The engine from pixels to faces, against the network written down as plainly as can be, in double.
#include "retinaface/engine.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "check.hpp"
#include "engine/denormals.hpp"
#include "plain_network.hpp"
#include "random_network.hpp"

#if defined(__linux__)
#include <malloc.h>
#define COUNT_MEMORY
#endif

#ifdef COUNT_MEMORY
// Every allocation of this program is counted, for the test that memory does not grow, and filled with NaN:
// what reads numbers that nobody wrote gives answers that nobody expects.
namespace {
std::atomic<std::size_t> bytes_in_use{0};
std::atomic<std::size_t> most_bytes{0};

void* counted(void* memory) {
    if (memory == nullptr) throw std::bad_alloc();
    const std::size_t room = malloc_usable_size(memory);
    std::memset(memory, 0xFF, room);
    const std::size_t bytes = bytes_in_use += room;
    std::size_t most = most_bytes;
    while (bytes > most && !most_bytes.compare_exchange_weak(most, bytes)) {
    }
    return memory;
}

void give_back(void* memory) noexcept {
    if (memory != nullptr) bytes_in_use -= malloc_usable_size(memory);
    std::free(memory);
}
}  // namespace

void* operator new(std::size_t count) { return counted(std::malloc(count == 0 ? 1 : count)); }
void* operator new(std::size_t count, std::align_val_t alignment) {
    const auto side = static_cast<std::size_t>(alignment);
    return counted(std::aligned_alloc(side, (count + side - 1) / side * side));
}
void* operator new(std::size_t count, const std::nothrow_t&) noexcept {
    try {
        return operator new(count);
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}
void operator delete(void* memory, const std::nothrow_t&) noexcept { give_back(memory); }
void operator delete(void* memory) noexcept { give_back(memory); }
void operator delete(void* memory, std::size_t) noexcept { give_back(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { give_back(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { give_back(memory); }
#endif

namespace {

using namespace retinaface;
using check::Picture;

// --- pictures and answers ---------------------------------------------------------------------------------

bool equal(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() &&
           (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

// Raw outputs in the order of the oracle's.
class Raw {
  public:
    Raw(const Engine& engine, const ImageView& image) {
        RawLevel levels[3];
        for (std::size_t k = 0; k < 3; ++k) {
            const std::size_t anchors = engine.anchors().num_anchors(k, image.size);
            for (const std::size_t width : {2U, 4U, 10U}) {
                values.emplace_back(anchors * width, std::numeric_limits<float>::quiet_NaN());
            }
            levels[k] = {values[3 * k].data(), values[3 * k + 1].data(), values[3 * k + 2].data()};
        }
        engine.run(image, levels);
    }
    Raw(const Raw&) = delete;
    Raw& operator=(const Raw&) = delete;

    [[nodiscard]] std::array<LevelOutputs, 3> levels() const {
        std::array<LevelOutputs, 3> all{};
        for (std::size_t k = 0; k < 3; ++k) {
            all[k] = {values[3 * k].data(), values[3 * k + 1].data(), values[3 * k + 2].data()};
        }
        return all;
    }

    [[nodiscard]] bool same(const Raw& other) const {
        return std::equal(values.begin(), values.end(), other.values.begin(), other.values.end(), equal);
    }

    std::vector<std::vector<float>> values;
};

bool same(const Workspace& a, const Workspace& b) {
    return equal(a.scores, b.scores) && equal(a.boxes, b.boxes) && equal(a.landmarks, b.landmarks);
}

PostprocessOptions above(double threshold) {
    PostprocessOptions options;
    options.score_threshold = threshold;
    return options;
}

struct Net {
    Net(const check::NetworkShape& shape, std::uint64_t seed)
        : network(shape, seed), options{check::pyramid(shape.anchors)} {}

    [[nodiscard]] Engine engine(std::size_t threads) const { return {network.tensors, options, threads}; }

    check::RandomNetwork network;
    NetworkOptions options;
};

const Net& quarter() {
    static const Net net(check::mobilenet(2, 64), 11);
    return net;
}

// As cheap as can be.
check::NetworkShape smallest_shape() { return {8, std::vector<std::size_t>(13, 16), 64, {2, 2, 2}}; }

const Net& smallest() {
    static const Net net(smallest_shape(), 12);
    return net;
}

const std::vector<ImageSize>& sizes() {
    static const std::vector<ImageSize> all = {{1, 1},   {1, 2},   {1, 90},  {90, 1},  {5, 6},
                                               {31, 33}, {64, 48}, {61, 97}, {130, 70}};
    return all;
}

// --- the network ------------------------------------------------------------------------------------------

void expect_oracle(const Net& net, const std::vector<ImageSize>& images, std::size_t threads) {
    const check::PlainNetwork oracle(net.network, net.options);
    const Engine engine = net.engine(threads);
    for (const ImageSize size : images) {
        const Picture picture(size, size.height + size.width);
        const double worst =
            check::error_of_range(oracle.run(picture.view()), Raw(engine, picture.view()).values);
        if (!(worst <= 1e-5))
            std::fprintf(stderr, "%zux%zu: %g of the range\n", size.height, size.width, worst);
        CHECK(worst <= 1e-5);  // 1e-4 is promised
    }
}

void test_oracle() {
    expect_oracle(quarter(), sizes(), 2);
    expect_oracle(Net(check::mobilenet(4, 128), 13), {{1, 1}, {31, 33}, {64, 48}}, 1);
    expect_oracle(Net(check::mobilenet(8, 64), 14), {{33, 21}}, 1);
}

// What the published networks do not have: other slopes, means and numbers of anchors.
void test_oracle_of_other_networks() {
    Net net({16, {16, 32, 16, 48, 32, 16, 64, 16, 16, 16, 80, 32, 48}, 128, {1, 3, 5}}, 15);
    net.options.backbone_slope = 0.0F;
    net.options.neck_slope = 0.25F;
    net.options.mean_bgr[0] = 0.0F;
    net.options.mean_bgr[1] = 255.0F;
    net.options.mean_bgr[2] = 12.5F;
    expect_oracle(net, {{3, 3}, {47, 50}}, 3);
    net.options.backbone_slope = 1.0F;
    net.options.neck_slope = 1.0F;
    expect_oracle(net, {{33, 15}}, 1);
}

// Rows of a level's outputs that a band of the picture gives just as the whole does: those that nothing
// outside of the band can reach.
void expect_band(const Engine& engine, const Picture& picture, const Raw& whole, std::size_t first,
                 std::size_t end) {
    constexpr std::size_t kReach = 512;  // pixels, more than the network looks to either side
    CHECK(first % 128 == 0);
    const std::size_t row = 3 * picture.size.width;
    const Raw band(engine, {picture.bytes.data() + first * row,
                            {end - first, picture.size.width},
                            static_cast<std::ptrdiff_t>(row),
                            ChannelOrder::bgr});
    const std::size_t begin = first == 0 ? 0 : first + kReach;
    const std::size_t stop = end == picture.size.height ? end : end - kReach;
    for (std::size_t i = 0; i < 9; ++i) {
        const std::size_t stride = std::size_t{8} << (i / 3);
        const std::size_t rows = (picture.size.height + stride - 1) / stride;
        const std::size_t floats = whole.values[i].size() / rows;
        const std::size_t count = ((stop + stride - 1) / stride - begin / stride) * floats;
        const float* const expected = whole.values[i].data() + begin / stride * floats;
        const float* const found = band.values[i].data() + (begin - first) / stride * floats;
        CHECK(count > 0 && std::memcmp(expected, found, count * sizeof(float)) == 0);
    }
}

// Large maps are computed in other ways than small ones, layers together or in place, which changes nothing:
// a tall picture with many channels against bands of it.
void test_large_maps() {
    check::NetworkShape shape = smallest_shape();
    shape.blocks[4] = 64;
    shape.blocks[10] = 688;
    shape.blocks[12] = 1344;
    const Net net(shape, 16);
    const Picture picture({18736, 8}, 17);
    const Engine one = net.engine(1);
    const Engine three = net.engine(3);
    const Raw whole(three, picture.view());
    expect_band(one, picture, whole, 0, 1024);
    expect_band(three, picture, whole, 9216, 10496);
    expect_band(one, picture, whole, 17664, 18736);
    const Picture small({97, 8}, 18);
    const check::PlainNetwork oracle(net.network, net.options);
    CHECK(check::error_of_range(oracle.run(small.view()), Raw(one, small.view()).values) <= 1e-5);
}

void test_detect_is_run_and_postprocess() {
    const Engine engine = quarter().engine(2);
    std::size_t faces = 0;
    for (const ImageSize size : sizes()) {
        const Picture picture(size, 21);
        const Raw raw(engine, picture.view());
        for (const double threshold : {0.0, 0.5, 0.8, 1.0}) {
            for (const std::size_t limit : {0U, 3U}) {
                PostprocessOptions options = above(threshold);
                options.top_k = 3 * limit;
                options.keep_top_k = limit;
                // Both are known to the engine, which must not look at these.
                options.score_kind = ScoreKind::probabilities;
                options.variances = {3.0F, 4.0F};
                Workspace found;
                CHECK(engine.detect(picture.view(), options, found) >= 0.0);
                options.score_kind = ScoreKind::logits;
                options.variances = quarter().options.variances;
                Workspace expected;
                postprocess(engine.anchors(), size, raw.levels().data(), options, expected);
                CHECK(same(found, expected));
                faces += found.scores.size();
            }
        }
    }
    CHECK(faces > 100);
}

void test_threads_do_not_matter() {
    const Engine first = quarter().engine(1);
    CHECK(first.threads() == 1);
    for (const std::size_t threads : {2U, 3U, 4U}) {
        const Engine engine = quarter().engine(threads);
        CHECK(engine.threads() == threads);
        for (const ImageSize size : sizes()) {
            const Picture picture(size, 31);
            CHECK(Raw(first, picture.view()).same(Raw(engine, picture.view())));
            Workspace expected;
            Workspace found;
            first.detect(picture.view(), above(0.4), expected);
            engine.detect(picture.view(), above(0.4), found);
            CHECK(same(found, expected));
        }
    }
}

void test_channel_order() {
    const Engine engine = quarter().engine(1);
    for (const ImageSize size : sizes()) {
        const Picture picture(size, 41);
        Picture swapped = picture;
        for (std::size_t i = 0; i < swapped.bytes.size(); i += 3)
            std::swap(swapped.bytes[i], swapped.bytes[i + 2]);
        const Raw expected(engine, picture.view());
        CHECK(expected.same(Raw(engine, swapped.view(ChannelOrder::rgb))));
        CHECK(size.height * size.width < 9 || !expected.same(Raw(engine, picture.view(ChannelOrder::rgb))));
    }
}

// Rows with other bytes between them, upside down, and all the same row; in memory that ends with the last
// pixel.
void test_row_strides() {
    const Engine engine = quarter().engine(2);
    for (const ImageSize size : sizes()) {
        const Picture picture(size, 51);
        const Raw expected(engine, picture.view());
        const std::size_t row = 3 * size.width;
        for (const std::size_t gap : {1U, 64U}) {
            const std::size_t step = row + gap;
            std::vector<std::uint8_t> bytes((size.height - 1) * step + row, std::uint8_t{77});
            std::vector<std::uint8_t> turned(bytes);
            for (std::size_t y = 0; y < size.height; ++y) {
                const auto from = picture.bytes.begin() + static_cast<std::ptrdiff_t>(y * row);
                const auto end = from + static_cast<std::ptrdiff_t>(row);
                std::copy(from, end, bytes.begin() + static_cast<std::ptrdiff_t>(y * step));
                const std::size_t below = size.height - 1 - y;
                std::copy(from, end, turned.begin() + static_cast<std::ptrdiff_t>(below * step));
            }
            const auto stride = static_cast<std::ptrdiff_t>(step);
            CHECK(expected.same(Raw(engine, {bytes.data(), size, stride, ChannelOrder::bgr})));
            const std::uint8_t* const top = turned.data() + (size.height - 1) * step;
            CHECK(expected.same(Raw(engine, {top, size, -stride, ChannelOrder::bgr})));
        }
        Picture repeated = picture;
        for (std::size_t i = 0; i < repeated.bytes.size(); ++i) repeated.bytes[i] = picture.bytes[i % row];
        CHECK(Raw(engine, repeated.view())
                  .same(Raw(engine, {picture.bytes.data(), size, 0, ChannelOrder::bgr})));
    }
}

// --- many calls -------------------------------------------------------------------------------------------

void test_many_threads_at_once() {
    const Engine engine = smallest().engine(2);
    std::vector<Picture> pictures;
    std::vector<std::unique_ptr<Workspace>> expected;
    for (std::size_t i = 0; i < 8; ++i) {
        pictures.emplace_back(ImageSize{9 + 17 * i, 80 - 9 * i}, 60 + i);
        expected.push_back(std::make_unique<Workspace>());
        engine.detect(pictures.back().view(), above(0.3), *expected.back());
    }
    std::atomic<int> wrong{0};
    std::vector<std::thread> callers;
    for (std::size_t caller = 0; caller < 8; ++caller) {
        callers.emplace_back([&, caller]() {
            Workspace found;
            for (std::size_t i = 0; i < 24; ++i) {
                const std::size_t n = (i * (1 + caller % 3) + caller) % pictures.size();
                engine.detect(pictures[n].view(), above(0.3), found);
                wrong += same(found, *expected[n]) ? 0 : 1;
            }
        });
    }
    for (std::thread& caller : callers) caller.join();
    CHECK(wrong == 0);
}

#ifdef COUNT_MEMORY
// What is in use after calls of many sizes depends on the sizes, and not on how many calls there were.
void test_memory_is_flat() {
    const Engine engine = smallest().engine(2);
    Workspace faces;
    const auto look = [&](ImageSize size) {
        const Picture picture(size, 71);
        engine.detect(picture.view(), above(0.5), faces);
    };
    const std::size_t before = bytes_in_use;
    look({120, 150});
    const std::size_t one = bytes_in_use - before;
    std::size_t after_first_round = 0;
    most_bytes = bytes_in_use.load();
    for (int round = 0; round < 4; ++round) {
        check::Random random(72);
        for (int i = 0; i < 15; ++i) look({1 + random() % 120, 1 + random() % 150});
        look({120, 150});
        if (round == 0) after_first_round = bytes_in_use - before;
    }
    // An allocation may be a few bytes larger than it was asked for, as it happens.
    CHECK(bytes_in_use - before <= after_first_round + 4096);
    CHECK(after_first_round <= one + one / 2);
    CHECK(most_bytes - before <= 2 * one);
}

// What only a single large picture needed does not stay for good.
void test_memory_of_a_large_picture_goes_back() {
    const Engine engine = smallest().engine(1);
    Workspace faces;
    const Picture small({24, 24}, 73);
    engine.detect(small.view(), above(0.5), faces);
    const std::size_t before = bytes_in_use;
    {
        const Picture large({640, 120}, 74);  // the scratch of a thread goes by the width, and stays
        engine.detect(large.view(), above(0.5), faces);
    }
    const std::size_t grown = bytes_in_use - before;
    CHECK(grown > 300'000);
    for (int i = 0; i < 70; ++i) engine.detect(small.view(), above(0.5), faces);
    CHECK(bytes_in_use < before + grown / 3);
}
#endif

// --- tensors that are no network --------------------------------------------------------------------------

// Whether the engine refuses, and names what is wrong.
bool refuses(const std::vector<NamedTensor>& tensors, const NetworkOptions& options,
             const std::string& named) {
    try {
        const Engine engine(tensors, options, 1);
    } catch (const std::invalid_argument& error) {
        if (std::string(error.what()).find(named) != std::string::npos) return true;
        std::fprintf(stderr, "not about '%s': %s\n", named.c_str(), error.what());
        return false;
    }
    std::fprintf(stderr, "accepted in spite of '%s'\n", named.c_str());
    return false;
}

void test_bad_tensors() {
    const std::vector<NamedTensor>& good = smallest().network.tensors;
    const NetworkOptions& options = smallest().options;
    CHECK(good.size() == 112);
    CHECK(refuses({}, options, "backbone.stem.conv.weight"));
    for (std::size_t i = 0; i < good.size(); ++i) {
        const std::string& name = good[i].name;
        // Of a pair of which one is wrong, either may be named.
        const std::string layer = name.substr(0, name.rfind('.'));

        std::vector<NamedTensor> tensors = good;
        tensors.erase(tensors.begin() + static_cast<std::ptrdiff_t>(i));
        CHECK(refuses(tensors, options, "'" + name + "' is missing"));

        tensors = good;
        tensors[i].name += "s";
        CHECK(refuses(tensors, options, "'" + name + "' is missing"));

        tensors = good;
        tensors.push_back(good[i]);
        CHECK(refuses(tensors, options, "two of the name '" + name + "'"));

        tensors = good;
        tensors[i].shape.push_back(1);
        CHECK(refuses(tensors, options, "['" + name + "']"));

        tensors = good;
        tensors[i].shape.clear();
        CHECK(refuses(tensors, options, "['" + name + "']"));

        for (std::size_t axis = 0; axis < good[i].shape.size(); ++axis) {
            for (const std::size_t side :
                 {std::size_t{0}, good[i].shape[axis] + 1, static_cast<std::size_t>(-1)}) {
                tensors = good;
                tensors[i].shape[axis] = side;
                CHECK(refuses(tensors, options, "['" + layer));
            }
        }
    }
    std::vector<NamedTensor> tensors = good;
    tensors.push_back({"context.3.conv3x3.conv.weight", {1}, good[0].data});
    CHECK(refuses(tensors, options, "'context.3.conv3x3.conv.weight'"));
}

void test_channels_that_do_not_fit() {
    const auto refused = [](const check::NetworkShape& shape, const std::string& named) {
        const Net net(shape, 81);
        CHECK(refuses(net.network.tensors, net.options, named));
    };
    check::NetworkShape shape = smallest_shape();
    shape.stem = 12;
    refused(shape, "backbone.stem.conv.weight");
    shape.stem = 8;
    shape.blocks[7] = 24;
    refused(shape, "backbone.blocks.7.pointwise.conv.weight");
    shape.blocks[7] = 16;
    shape.features = 96;
    refused(shape, "fpn.lateral.0.conv.weight");
}

void test_bad_options() {
    const check::RandomNetwork& network = smallest().network;
    const auto with_anchors = [&](std::vector<AnchorLevel> levels, const std::string& named) {
        CHECK(refuses(network.tensors, NetworkOptions{AnchorPyramid(std::move(levels))}, named));
    };
    with_anchors({{8, {16.0F, 32.0F}}, {16, {64.0F, 128.0F}}}, "anchors");
    with_anchors({{8, {1.0F, 2.0F}}, {16, {1.0F, 2.0F}}, {32, {1.0F, 2.0F}}, {64, {1.0F, 2.0F}}}, "anchors");
    with_anchors({{4, {1.0F, 2.0F}}, {8, {1.0F, 2.0F}}, {16, {1.0F, 2.0F}}}, "anchors");
    with_anchors({{8, {1.0F, 2.0F}}, {32, {1.0F, 2.0F}}, {16, {1.0F, 2.0F}}}, "anchors");
    with_anchors({{8, {1.0F, 2.0F}}, {16, {1.0F, 2.0F, 3.0F}}, {32, {1.0F, 2.0F}}}, "class_head.1.weight");
    for (const float slope :
         {-0.1F, 1.1F, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
        NetworkOptions options = smallest().options;
        options.backbone_slope = slope;
        CHECK(refuses(network.tensors, options, "slope"));
        options = smallest().options;
        options.neck_slope = slope;
        CHECK(refuses(network.tensors, options, "slope"));
    }
    CHECK(smallest().engine(0).threads() == 1);
}

// The engine keeps nothing of what it was made from.
void test_weights_are_copied() {
    const Picture picture({40, 30}, 91);
    auto net = std::make_unique<Net>(smallest_shape(), 12);
    const Engine engine = net->engine(1);
    for (std::size_t i = 0; i < net->network.tensors.size(); ++i) {
        for (float& value : net->network.values(i)) value = 7.0F;
    }
    net.reset();
    CHECK(Raw(engine, picture.view()).same(Raw(smallest().engine(1), picture.view())));
}

// --- denormal numbers -------------------------------------------------------------------------------------

#if defined(RETINAFACE_CONTROL_SSE)
unsigned control_word() { return _mm_getcsr() & 0xFFC0U; }  // without the flags of what happened
void set_control_word(unsigned word) { _mm_setcsr(word); }
constexpr unsigned kOtherWords[] = {0x1F80U, 0x9FC0U, 0x7F80U};  // usual; flushing; rounding towards zero
#elif defined(RETINAFACE_CONTROL_FPCR)
std::uint64_t control_word() {
    std::uint64_t word = 0;
    __asm__ volatile("mrs %0, fpcr" : "=r"(word));
    return word;
}
void set_control_word(std::uint64_t word) { __asm__ volatile("msr fpcr, %0" : : "r"(word)); }
constexpr std::uint64_t kOtherWords[] = {0, std::uint64_t{1} << 24U, std::uint64_t{3} << 22U};
#endif

#if defined(RETINAFACE_CONTROL_SSE) || defined(RETINAFACE_CONTROL_FPCR)
void test_control_word_is_restored() {
    const Engine engine = smallest().engine(2);
    const Picture picture({33, 40}, 95);
    const auto usual = control_word();
    for (const auto word : kOtherWords) {
        set_control_word(word);
        const auto before = control_word();
        {
            const Raw raw(engine, picture.view());
            CHECK(control_word() == before);
            Workspace faces;
            engine.detect(picture.view(), above(0.1), faces);
            CHECK(control_word() == before);
            CHECK(!faces.scores.empty());
        }
        set_control_word(usual);
    }
}

// The stem gives denormal numbers that the layers behind it would make large again: taken for zero, they
// leave nothing but the biases of the heads.
void test_denormals_are_flushed() {
    Net net(smallest_shape(), 97);
    for (std::size_t i = 0; i < net.network.tensors.size(); ++i) {
        const std::string& name = net.network.tensors[i].name;
        const bool bias = name.find(".bias") != std::string::npos;
        const bool head = name.find("head") != std::string::npos;
        for (float& value : net.network.values(i)) {
            if (bias && !head) value = 0.0F;
            if (!bias && i == 0) value *= 1e-39F;
            if (!bias && i > 0 && i < 20) value *= 1e5F;
        }
    }
    for (const std::size_t threads : {1U, 3U}) {
        const Engine engine = net.engine(threads);
        const Picture picture({50, 40}, 98);
        const Raw raw(engine, picture.view());
        const char* const heads[3] = {"class_head.", "box_head.", "landmark_head."};
        for (std::size_t i = 0; i < 9; ++i) {
            const std::string name = heads[i % 3] + std::to_string(i / 3) + ".bias";
            const std::vector<float>& bias = net.network.values(net.network.index_of(name));
            bool only_bias = true;
            for (std::size_t n = 0; n < raw.values[i].size(); ++n) {
                only_bias = only_bias && raw.values[i][n] == bias[n % bias.size()];
            }
            CHECK(only_bias);
        }
    }
}
#else
void test_control_word_is_restored() {}
void test_denormals_are_flushed() {}
#endif

#ifndef COUNT_MEMORY
void test_memory_is_flat() {}
void test_memory_of_a_large_picture_goes_back() {}
#endif

}  // namespace

CHECK_MAIN(test_oracle, test_oracle_of_other_networks, test_large_maps, test_detect_is_run_and_postprocess,
           test_threads_do_not_matter, test_channel_order, test_row_strides, test_many_threads_at_once,
           test_memory_is_flat, test_memory_of_a_large_picture_goes_back, test_bad_tensors,
           test_channels_that_do_not_fit, test_bad_options, test_weights_are_copied,
           test_control_word_is_restored, test_denormals_are_flushed)
