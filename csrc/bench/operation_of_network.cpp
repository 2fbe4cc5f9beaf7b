// The network of MobileNet-0.25 with random weights, on one thread.
#include "operations.hpp"
#include "plain_network.hpp"
#include "retinaface/engine.hpp"

namespace bench {

namespace {

using namespace retinaface;

class Network final : public Operation {
  public:
    Network() {
        for (std::size_t k = 0; k < 3; ++k) {
            const std::size_t anchors = engine_.anchors().num_anchors(k, picture_.size);
            for (const std::size_t width : {2U, 4U, 10U}) outputs_.emplace_back(anchors * width);
        }
        for (std::size_t k = 0; k < 3; ++k) {
            levels_[k] = {outputs_[3 * k].data(), outputs_[3 * k + 1].data(), outputs_[3 * k + 2].data()};
        }
    }

    void run() override { engine_.run(picture_.view(), levels_); }

    void check() const override {
        const check::PlainNetwork plain(network_, options_);
        CHECK(check::error_of_range(plain.run(picture_.view()), outputs_) <= 1e-5);
    }

    [[nodiscard]] std::size_t items() const override { return picture_.size.height * picture_.size.width; }
    [[nodiscard]] std::uint64_t hash() const override {
        std::uint64_t hash = kEmptyHash;
        for (const std::vector<float>& values : outputs_) hash = hash_of(values, hash);
        return hash;
    }

  private:
    check::RandomNetwork network_{check::mobilenet(2, 64), 11};
    NetworkOptions options_{check::pyramid()};
    check::Picture picture_{{480, 640}, 12};
    Engine engine_{network_.tensors, options_, 1};
    std::vector<std::vector<float>> outputs_;
    RawLevel levels_[3]{};
};

}  // namespace

std::unique_ptr<Operation> make_network() { return std::make_unique<Network>(); }

}  // namespace bench
