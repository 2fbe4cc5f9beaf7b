// The network, from pixels to faces: MobileNetV1 RetinaFace on the CPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "retinaface/anchors.hpp"
#include "retinaface/decode.hpp"
#include "retinaface/postprocess.hpp"

namespace retinaface {

// A tensor of the network, row-major, with batch norm folded into weight and bias. The names are the
// canonical ones of the package's weight files.
struct NamedTensor {
    std::string name;
    std::vector<std::size_t> shape;
    const float* data;
};

struct NetworkOptions {
    AnchorPyramid anchors;
    Variances variances{};
    float mean_bgr[3] = {104.0F, 117.0F, 123.0F};  // subtracted from the pixels
    float backbone_slope = 0.1F;                   // of the leaky rectifiers, within [0, 1]
    float neck_slope = 0.1F;
};

enum class ChannelOrder { bgr, rgb };

// Pixels of three bytes, side by side in a row.
struct ImageView {
    const std::uint8_t* pixels;  // the first pixel of the first row
    ImageSize size;              // at least 1 x 1, at most kMaxImageSide each
    std::ptrdiff_t row_stride;   // bytes from row to row, of either sign
    ChannelOrder order;
};

// Raw outputs of one level to be written: contiguous rows, one for each anchor of the level.
struct RawLevel {
    float* class_scores;     // (A, 2) logits: background, face
    float* box_deltas;       // (A, 4)
    float* landmark_deltas;  // (A, 10)
};

// Built once, then immutable: any number of threads may use one at the same time. What a call needs besides
// the weights it takes from a pool. The result of a call does not depend on the number of threads.
class Engine {
  public:
    // Copies and packs the weights. At most `threads` threads (at least 1) work on one call.
    // Throws std::invalid_argument if the tensors are not a network that this engine runs: MobileNetV1 with
    // three levels, pointwise layers of a multiple of 16 channels, and a shared first convolution of the
    // context modules.
    Engine(const std::vector<NamedTensor>& tensors, const NetworkOptions& options, std::size_t threads);
    ~Engine();
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    [[nodiscard]] std::size_t threads() const noexcept;
    [[nodiscard]] const AnchorPyramid& anchors() const noexcept;

    // The raw outputs of the network into `levels`, one entry for each level.
    void run(const ImageView& image, const RawLevel* levels) const;

    // The faces of an image, as `postprocess` of the raw outputs gives them, into `faces`. Boxes are computed
    // only where a score passes the threshold, landmarks only for the faces. options.score_kind and
    // options.variances are not looked at. Returns the seconds spent in the network.
    double detect(const ImageView& image, const PostprocessOptions& options, Workspace& faces) const;

  private:
    struct Implementation;
    std::unique_ptr<const Implementation> implementation_;
};

// Processors that this process may use, at least 1: on Linux its affinity mask and the processor quota of its
// control groups, elsewhere what the standard library says. Reads a few files.
[[nodiscard]] std::size_t available_processors() noexcept;

}  // namespace retinaface
