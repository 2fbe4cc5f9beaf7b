// Post-processing on a CUDA device: what retinaface/postprocess.hpp does, for outputs that lie there already.
//
// The same arithmetic in the same order of candidates (csrc/arithmetic.hpp) gives the same faces, bit for
// bit. A call enqueues its work on the caller's stream and returns; nothing waits unless it is asked to.
// Device memory comes from a pool of this library, in the order of the stream, and goes back to it.
//
// There are no CUDA headers here: a stream is the address that a cudaStream_t holds, device memory is a plain
// pointer that the host must not read. The stream of a thread by itself (cudaStreamPerThread) is refused: it
// is another one where results are fetched or let go of in another thread. A call is not for capture into a
// graph.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "retinaface/anchors.hpp"
#include "retinaface/postprocess.hpp"

namespace retinaface::cuda {

// Limits of one call: what a kernel finds in its parameters.
inline constexpr std::size_t kMaxLevels = 8;
inline constexpr std::size_t kMaxSizesPerLevel = 8;
inline constexpr std::size_t kMaxBatch = 65535;

// A face as it leaves the device: box xyxy, score, landmarks.
inline constexpr std::size_t kFaceFloats = 4 + 1 + kLandmarkFloats;

// What CUDA says when something goes wrong.
class Error : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

// There is not enough memory on the device; with less kept by others there might be.
class OutOfMemory : public Error {
  public:
    using Error::Error;
};

// Number of devices; 0 where there is no driver.
[[nodiscard]] int device_count() noexcept;

// Why the kernels cannot run on a device, in words; empty if they can.
[[nodiscard]] std::string obstacle(int device);

// The device that memory lies on. Throws Error if it is no device memory.
[[nodiscard]] int device_of(const void* memory);

// One level of a batch on the device: contiguous rows of one image, one for each anchor, and how many floats
// further those of the next image begin.
struct DeviceLevel {
    const float* class_scores;     // (B, A, 2)
    const float* box_deltas;       // (B, A, 4)
    const float* landmark_deltas;  // (B, A, 10)
    std::ptrdiff_t class_stride;
    std::ptrdiff_t box_stride;
    std::ptrdiff_t landmark_stride;
};

// The faces of a batch, image after image. Those of image b are the rows offsets[b] to offsets[b + 1].
struct HostFaces {
    std::vector<std::int32_t> offsets;  // (B + 1)
    std::vector<float> rows;            // (offsets[B], kFaceFloats)
};

// The same on the device, once the stream has come so far. The memory is given back, in the order of the
// stream, when this is destroyed.
class DeviceFaces {
  public:
    DeviceFaces() noexcept;
    DeviceFaces(DeviceFaces&&) noexcept;
    DeviceFaces& operator=(DeviceFaces&&) noexcept;
    DeviceFaces(const DeviceFaces&) = delete;
    DeviceFaces& operator=(const DeviceFaces&) = delete;
    ~DeviceFaces();

    [[nodiscard]] int device() const noexcept;
    [[nodiscard]] std::uintptr_t stream() const noexcept;
    [[nodiscard]] std::size_t batch_size() const noexcept;
    [[nodiscard]] std::size_t capacity() const noexcept;         // rows that there is room for
    [[nodiscard]] const std::int32_t* offsets() const noexcept;  // (batch_size + 1), on the device
    [[nodiscard]] const float* rows() const noexcept;            // (capacity, kFaceFloats), on the device

    // Copies what was found and waits for the stream. One copy, or a second one where a batch has more than a
    // thousand faces. Throws Error, also for what went wrong on the stream before.
    [[nodiscard]] HostFaces to_host() const;

  private:
    friend DeviceFaces postprocess(const AnchorPyramid&, ImageSize, const DeviceLevel*, std::size_t,
                                   const PostprocessOptions&, int, std::uintptr_t);
    struct State;
    std::unique_ptr<State> state_;
};

// Enqueues the post-processing of a batch of images of one size. `levels` holds one entry for each level of
// the pyramid, and must stay as it is until the stream has come past the call.
//
// Throws std::invalid_argument if the pyramid, the batch or the number of anchors is beyond the limits or the
// stream is that of a thread by itself, and Error if CUDA refuses.
[[nodiscard]] DeviceFaces postprocess(const AnchorPyramid& pyramid, ImageSize image,
                                      const DeviceLevel* levels, std::size_t batch_size,
                                      const PostprocessOptions& options, int device, std::uintptr_t stream);

// Makes `stream` wait for what is enqueued on `other` by now. Throws Error.
void wait_for(int device, std::uintptr_t stream, std::uintptr_t other);

}  // namespace retinaface::cuda
