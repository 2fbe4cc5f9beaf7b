// The construction of an engine from tensors of any names, shapes and numbers: it succeeds, or throws
// std::invalid_argument with a message, and what was constructed can be run.
//
// The input is a list of changes to the tensors of a small network: bytes alone would hardly ever spell a
// name.
#include <fuzzer/FuzzedDataProvider.h>

#include <cstdint>
#include <cstring>
#include <limits>
#include <list>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "expect.hpp"
#include "random_network.hpp"
#include "retinaface/engine.hpp"

namespace {

using namespace retinaface;

// Beyond this a tensor has no memory, and an input that would make a network of it is passed over.
constexpr std::size_t kMostElements = std::size_t{1} << 18U;
constexpr std::size_t kTensors = 112;

const check::NetworkShape& small() {
    static const check::NetworkShape shape{8, std::vector<std::size_t>(13, 16), 64, {2, 2, 2}};
    return shape;
}

std::size_t any_side(FuzzedDataProvider& data) {
    constexpr std::size_t kSpecial[] = {
        0, 1, 2, 3, 4, 8, 16, 20, 32, 64, 128, 4096, 16384, 16385, 1U << 31, static_cast<std::size_t>(-1)};
    return data.ConsumeBool() ? data.PickValueInArray(kSpecial)
                              : data.ConsumeIntegralInRange<std::size_t>(0, 300);
}

std::vector<std::size_t> any_shape(FuzzedDataProvider& data) {
    std::vector<std::size_t> shape(data.ConsumeIntegralInRange<std::size_t>(0, 6));
    for (std::size_t& side : shape) side = any_side(data);
    return shape;
}

float any_slope(FuzzedDataProvider& data) {
    constexpr float kSpecial[] = {0.1F,
                                  0.0F,
                                  1.0F,
                                  -0.0F,
                                  -1.0F,
                                  1.0000001F,
                                  1e-40F,
                                  std::numeric_limits<float>::infinity(),
                                  std::numeric_limits<float>::quiet_NaN()};
    return data.PickValueInArray(kSpecial);
}

AnchorPyramid any_anchors(FuzzedDataProvider& data) {
    std::vector<AnchorLevel> levels(data.ConsumeIntegralInRange<std::size_t>(0, 5));
    for (std::size_t k = 0; k < levels.size(); ++k) {
        constexpr std::size_t kSpecial[] = {0, 1, 4, 8, 16, 32, 64, static_cast<std::size_t>(-1)};
        levels[k].stride = data.ConsumeBool() ? std::size_t{8} << k : data.PickValueInArray(kSpecial);
        levels[k].sizes.assign(data.ConsumeIntegralInRange<std::size_t>(0, 6),
                               data.ConsumeFloatingPoint<float>());
    }
    return AnchorPyramid(std::move(levels));
}

// Whether the numbers that the shapes promise are there.
struct Memory {
    std::list<std::vector<float>> floats;
    bool complete = true;

    const float* of(const std::vector<std::size_t>& shape, std::uint32_t bits) {
        std::size_t count = 1;
        for (const std::size_t side : shape) {
            if (side != 0 && count > kMostElements / side) {
                complete = false;
                return nullptr;
            }
            count *= side;
        }
        float value = 0.0F;
        std::memcpy(&value, &bits, sizeof value);
        floats.emplace_back(count, value);
        return floats.back().data();
    }
};

// Changes that keep a network a network: other numbers of channels wherever the layer is read.
check::NetworkShape any_network(FuzzedDataProvider& data) {
    check::NetworkShape shape = small();
    constexpr std::size_t kChannels[] = {8, 16, 24, 32, 48, 64, 80, 4, 12};
    shape.stem = data.PickValueInArray(kChannels);
    for (std::size_t& channels : shape.blocks) channels = data.PickValueInArray(kChannels);
    constexpr std::size_t kFeatures[] = {64, 128, 16, 32, 96};
    shape.features = data.PickValueInArray(kFeatures);
    for (std::size_t& anchors : shape.anchors) anchors = data.ConsumeIntegralInRange<std::size_t>(1, 4);
    return shape;
}

// Random numbers for all tensors together: to make new ones each time takes longer than all the rest.
std::vector<NamedTensor> tensors_of(const check::NetworkShape& shape) {
    static const std::vector<float> numbers = []() {
        check::Random random(1);
        std::vector<float> values(kMostElements);
        for (float& value : values) value = check::uniform(random, -0.1F, 0.1F);
        return values;
    }();
    std::vector<NamedTensor> tensors;
    check::for_each_tensor(shape, [&](const std::string& name, const std::vector<std::size_t>& sides, float) {
        EXPECT(check::elements(sides) <= numbers.size());
        tensors.push_back({name, sides, numbers.data()});
    });
    return tensors;
}

void use(const Engine& engine, FuzzedDataProvider& data) {
    const ImageSize size{data.ConsumeIntegralInRange<std::size_t>(1, 40),
                         data.ConsumeIntegralInRange<std::size_t>(1, 40)};
    const std::vector<std::uint8_t> pixels(3 * size.height * size.width,
                                           data.ConsumeIntegral<std::uint8_t>());
    PostprocessOptions options;
    options.score_threshold = 0.1;
    Workspace faces;
    engine.detect({pixels.data(), size, static_cast<std::ptrdiff_t>(3 * size.width), ChannelOrder::bgr},
                  options, faces);
    EXPECT(faces.boxes.size() == 4 * faces.scores.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t count) {
    FuzzedDataProvider data(bytes, count);
    Memory memory;
    try {
        const check::NetworkShape shape = data.ConsumeBool() ? any_network(data) : small();
        std::vector<NamedTensor> tensors = tensors_of(shape);
        NetworkOptions options{data.ConsumeBool() ? any_anchors(data) : check::pyramid(shape.anchors)};
        if (data.ConsumeBool()) {
            options.backbone_slope = any_slope(data);
            options.neck_slope = any_slope(data);
        }
        for (std::size_t changes = data.ConsumeIntegralInRange<std::size_t>(0, 4); changes > 0; --changes) {
            if (tensors.empty()) break;
            const auto place = data.ConsumeIntegralInRange<std::size_t>(0, tensors.size() - 1);
            NamedTensor& tensor = tensors[place];
            const auto bits = data.ConsumeIntegral<std::uint32_t>();
            switch (data.ConsumeIntegralInRange(0, 7)) {
                case 0:
                    tensors.erase(tensors.begin() + static_cast<std::ptrdiff_t>(place));
                    break;
                case 1:
                    tensors.push_back(NamedTensor(tensor));
                    break;
                case 2:
                    tensor.name = data.ConsumeRandomLengthString(40);
                    break;
                case 3:
                    tensor.shape = any_shape(data);
                    tensor.data = memory.of(tensor.shape, bits);
                    break;
                case 4: {
                    const auto axis = data.ConsumeIntegralInRange<std::size_t>(0, tensor.shape.size());
                    if (axis == tensor.shape.size()) {
                        tensor.shape.push_back(1);
                    } else {
                        tensor.shape[axis] = any_side(data);
                    }
                    tensor.data = memory.of(tensor.shape, bits);
                    break;
                }
                case 5:
                    std::swap(tensor.name,
                              tensors[data.ConsumeIntegralInRange<std::size_t>(0, tensors.size() - 1)].name);
                    break;
                case 6: {
                    NamedTensor more{data.ConsumeRandomLengthString(40), any_shape(data), nullptr};
                    more.data = memory.of(more.shape, bits);
                    tensors.push_back(std::move(more));
                    break;
                }
                default:  // the same shape with another number in every place
                    tensor.data = memory.of(tensor.shape, bits);
                    break;
            }
        }
        if (data.ConsumeIntegralInRange(0, 15) == 0) tensors.clear();
        const Engine engine(tensors, options, data.ConsumeIntegralInRange<std::size_t>(0, 3));
        EXPECT(memory.complete);
        std::set<std::string> names;
        for (const NamedTensor& tensor : tensors) names.insert(tensor.name);
        EXPECT(tensors.size() == kTensors && names.size() == kTensors);
        EXPECT(options.backbone_slope >= 0.0F && options.backbone_slope <= 1.0F);
        EXPECT(options.neck_slope >= 0.0F && options.neck_slope <= 1.0F);
        EXPECT(engine.threads() >= 1);
        use(engine, data);
    } catch (const std::invalid_argument& error) {
        EXPECT(std::strlen(error.what()) >= 9);  // a name in it may hold a zero byte
    }
    return 0;
}
