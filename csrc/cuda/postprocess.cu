// Memory and launches: what retinaface/cuda.hpp promises around the kernels.
#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <mutex>
#include <utility>

#include "arithmetic.hpp"
#include "cuda/kernels.cuh"
#include "retinaface/cuda.hpp"
#include "retinaface/nms.hpp"

namespace retinaface::cuda {

namespace {

// What a pool keeps for the next call when nothing is in use: a batch of 64 VGA images takes some 55 MB.
constexpr std::uint64_t kPoolKeepsBytes = std::uint64_t{256} << 20;
constexpr std::size_t kMaxDevices = 64;
constexpr std::size_t kAlignment = 256;

// cudaStreamPerThread, which is a macro with a cast.
constexpr std::uintptr_t kPerThreadStream = 2;

// Faces that to_host copies before it knows how many there are.
constexpr std::size_t kRowsAtOnce = 1024;

void check(cudaError_t status, const char* what) {
    if (status == cudaSuccess) return;
    static_cast<void>(cudaGetLastError());  // so that the next call does not find it again
    const std::string words = std::string("CUDA failed to ") + what + ": " + cudaGetErrorString(status);
    if (status == cudaErrorMemoryAllocation) throw OutOfMemory(words);
    throw Error(words);
}

cudaStream_t stream_of(std::uintptr_t address) noexcept {
    return reinterpret_cast<cudaStream_t>(address);  // NOLINT(performance-no-int-to-ptr)
}

// The current device of the thread, and back to what it was before.
class OnDevice {
  public:
    explicit OnDevice(int device) {
        check(cudaGetDevice(&before_), "tell the current device");
        if (device == before_) return;
        check(cudaSetDevice(device), "switch to the device");
        changed_ = true;
    }
    OnDevice(const OnDevice&) = delete;
    OnDevice& operator=(const OnDevice&) = delete;
    ~OnDevice() {
        if (changed_) static_cast<void>(cudaSetDevice(before_));
    }

  private:
    int before_ = 0;
    bool changed_ = false;
};

// The pool of a device, made when it is first asked for and kept for good. What was given back on a stream
// goes to the next call on it; to one on another stream once it is certainly no longer in use.
cudaMemPool_t pool_of(int device) {
    static std::mutex mutex;
    static std::array<cudaMemPool_t, kMaxDevices> pools{};
    const std::lock_guard<std::mutex> lock(mutex);
    cudaMemPool_t& pool = pools.at(static_cast<std::size_t>(device));
    if (pool == nullptr) {
        cudaMemPoolProps properties{};
        properties.allocType = cudaMemAllocationTypePinned;
        properties.location.type = cudaMemLocationTypeDevice;
        properties.location.id = device;
        cudaMemPool_t made = nullptr;
        check(cudaMemPoolCreate(&made, &properties), "create a memory pool");
        std::uint64_t keeps = kPoolKeepsBytes;
        const cudaError_t status = cudaMemPoolSetAttribute(made, cudaMemPoolAttrReleaseThreshold, &keeps);
        if (status != cudaSuccess) static_cast<void>(cudaMemPoolDestroy(made));
        check(status, "set up a memory pool");
        pool = made;
    }
    return pool;
}

}  // namespace

// Memory of a device in the order of a stream.
class Buffer {
  public:
    Buffer() = default;
    Buffer(std::size_t bytes, int device, cudaStream_t stream) : device_(device), stream_(stream) {
        check(cudaMallocFromPoolAsync(&memory_, bytes, pool_of(device), stream), "allocate device memory");
    }
    Buffer(Buffer&& other) noexcept { swap(other); }
    Buffer& operator=(Buffer&& other) noexcept {
        swap(other);
        return *this;
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() {
        if (memory_ == nullptr) return;
        // The default stream is that of the current device. Nothing can be said here of what fails: at the
        // end of the process, CUDA may be gone already.
        int before = device_;
        static_cast<void>(cudaGetDevice(&before));
        if (before != device_) static_cast<void>(cudaSetDevice(device_));
        static_cast<void>(cudaFreeAsync(memory_, stream_));
        if (before != device_) static_cast<void>(cudaSetDevice(before));
    }
    [[nodiscard]] char* get() const noexcept { return static_cast<char*>(memory_); }

  private:
    void swap(Buffer& other) noexcept {
        std::swap(memory_, other.memory_);
        std::swap(device_, other.device_);
        std::swap(stream_, other.stream_);
    }

    void* memory_ = nullptr;
    int device_ = 0;
    cudaStream_t stream_ = nullptr;
};

namespace {

// Cuts arrays out of one buffer: first all are asked for, then their pointers are set.
class Layout {
  public:
    template <typename T>
    void add(T*& array, std::size_t length) {
        parts_.at(count_++) = {&array, bytes_};
        bytes_ += (length * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    }
    [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
    void place(char* memory) const noexcept {
        for (std::size_t i = 0; i < count_; ++i) {
            const void* const address = memory + parts_[i].offset;
            std::memcpy(parts_[i].pointer, &address, sizeof address);
        }
    }

  private:
    struct Part {
        void* pointer;  // of any type to data
        std::size_t offset;
    };
    std::array<Part, 16> parts_{};
    std::size_t count_ = 0;
    std::size_t bytes_ = 0;
};

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, unsigned threads, cudaStream_t stream,
            const Arguments&... arguments) {
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = dim3(threads);
    config.stream = stream;
    check(cudaLaunchKernelEx(&config, kernel, arguments...), "launch a kernel");
}

unsigned blocks(std::size_t items, unsigned each) noexcept {
    return static_cast<unsigned>((items + each - 1) / each);
}

// The task as the kernels see it, still without buffers.
Problem problem_of(const AnchorPyramid& pyramid, ImageSize image, const DeviceLevel* levels,
                   std::size_t batch_size, const PostprocessOptions& options) {
    const std::size_t level_count = pyramid.levels().size();
    if (level_count > kMaxLevels) throw std::invalid_argument("CUDA takes at most 8 levels of anchors");
    if (batch_size == 0 || batch_size > kMaxBatch) {
        throw std::invalid_argument("CUDA takes from 1 to 65535 images");
    }
    const std::size_t anchors = pyramid.num_anchors(image);
    if (anchors == 0) throw std::invalid_argument("the image has no anchors");
    if (anchors > kMaxAnchors) throw std::invalid_argument("the image has more than 2147483647 anchors");
    Problem problem{};
    std::uint32_t first = 0;
    for (std::size_t k = 0; k < level_count; ++k) {
        const AnchorLevel& anchor_level = pyramid.levels()[k];
        if (anchor_level.sizes.size() > kMaxSizesPerLevel) {
            throw std::invalid_argument("CUDA takes at most 8 anchor sizes for each level");
        }
        Level& level = problem.levels[k];
        level.outputs = levels[k];
        level.grid = CellGrid(anchor_level, pyramid.feature_size(k, image));
        level.begin = first;
        first += static_cast<std::uint32_t>(pyramid.num_anchors(k, image));
        level.end = first;
        std::copy(anchor_level.sizes.begin(), anchor_level.sizes.end(), std::begin(level.sizes));
    }
    const auto limit = [](std::size_t available, std::size_t wanted) {
        return static_cast<std::uint32_t>(wanted == 0 ? available : std::min(available, wanted));
    };
    problem.anchors = first;
    problem.batch_size = static_cast<std::uint32_t>(batch_size);
    problem.order_limit = limit(anchors, options.top_k);
    problem.keep_limit = limit(problem.order_limit, options.keep_top_k);
    problem.chunk_rows = std::min(blocks(problem.order_limit, kWordBits) * kWordBits, kChunk);
    if (batch_size * problem.keep_limit > kMaxAnchors) {
        throw std::invalid_argument("the batch may have more than 2147483647 faces; lower keep_top_k");
    }
    problem.probabilities = options.score_kind == ScoreKind::probabilities;
    problem.score_bound = round_down_to_float(options.score_threshold);
    problem.scan_bound = problem.probabilities ? problem.score_bound : logit_bound(options.score_threshold);
    problem.iou_threshold = round_down_to_float(options.nms_threshold);
    problem.variances = options.variances;
    return problem;
}

void enqueue(const Problem& problem, cudaStream_t stream) {
    const std::uint32_t images = problem.batch_size;
    check(cudaMemsetAsync(problem.found, 0, images * sizeof(std::uint32_t), stream), "clear a counter");
    launch(retinaface_scan, dim3(blocks(problem.anchors, kScanBlock), images), kScanThreads, stream, problem);
    launch(retinaface_sort, dim3(blocks(problem.anchors, kSortTile), images), kSortThreads, stream, problem);
    launch(retinaface_decode, dim3(blocks(problem.anchors, kDecodeThreads), images), kDecodeThreads, stream,
           problem);
    // How many chunks there will be is known on the device alone; those that nothing is left for end at once.
    for (unsigned chunk = 0; chunk < blocks(problem.order_limit, kChunk); ++chunk) {
        if (chunk != 0) {
            launch(retinaface_compare, dim3(kChunkWords, images), kCompareThreads, stream, problem, chunk);
        }
        const unsigned words = blocks(std::min(problem.order_limit, kChunk), kWordBits);
        launch(retinaface_overlap, dim3(words, blocks(words, kOverlapRows / kWordBits), images), kOverlapRows,
               stream, problem, chunk);
        launch(retinaface_reduce, dim3(images), kWarp, stream, problem, chunk);
    }
    launch(retinaface_gather, dim3(blocks(problem.keep_limit, kGatherThreads), images), kGatherThreads,
           stream, problem);
}

}  // namespace

struct DeviceFaces::State {
    Buffer buffer;
    int device;
    cudaStream_t stream;
    std::size_t batch_size;
    std::size_t capacity;
    std::int32_t* offsets;
    float* rows;

    // Bytes from the offsets to the rows, which lie behind them in the same buffer.
    [[nodiscard]] std::size_t head_bytes() const noexcept {
        return static_cast<std::size_t>(reinterpret_cast<const char*>(rows) -
                                        reinterpret_cast<const char*>(offsets));
    }
};

DeviceFaces::DeviceFaces() noexcept = default;
DeviceFaces::DeviceFaces(DeviceFaces&&) noexcept = default;
DeviceFaces& DeviceFaces::operator=(DeviceFaces&&) noexcept = default;
DeviceFaces::~DeviceFaces() = default;

int DeviceFaces::device() const noexcept { return state_->device; }
std::uintptr_t DeviceFaces::stream() const noexcept {
    return reinterpret_cast<std::uintptr_t>(state_->stream);
}
std::size_t DeviceFaces::batch_size() const noexcept { return state_->batch_size; }
std::size_t DeviceFaces::capacity() const noexcept { return state_->capacity; }
const std::int32_t* DeviceFaces::offsets() const noexcept { return state_->offsets; }
const float* DeviceFaces::rows() const noexcept { return state_->rows; }

HostFaces DeviceFaces::to_host() const {
    const State& state = *state_;
    const OnDevice on(state.device);
    const std::size_t head = state.head_bytes();
    constexpr std::size_t kRowBytes = kFaceFloats * sizeof(float);
    std::vector<char> copy(head + std::min(state.capacity, kRowsAtOnce) * kRowBytes);
    const auto fetch = [&state](void* to, const void* from, std::size_t bytes) {
        check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, state.stream), "copy the faces");
        check(cudaStreamSynchronize(state.stream), "find the faces");
    };
    fetch(copy.data(), state.offsets, copy.size());
    HostFaces faces;
    faces.offsets.resize(state.batch_size + 1);
    std::memcpy(faces.offsets.data(), copy.data(), faces.offsets.size() * sizeof(std::int32_t));
    const auto count = static_cast<std::size_t>(faces.offsets.back());
    const std::size_t copied = std::min(count, kRowsAtOnce);
    faces.rows.resize(count * kFaceFloats);
    if (copied > 0) std::memcpy(faces.rows.data(), copy.data() + head, copied * kRowBytes);
    if (count > copied) {
        fetch(faces.rows.data() + copied * kFaceFloats, state.rows + copied * kFaceFloats,
              (count - copied) * kRowBytes);
    }
    return faces;
}

DeviceFaces postprocess(const AnchorPyramid& pyramid, ImageSize image, const DeviceLevel* levels,
                        std::size_t batch_size, const PostprocessOptions& options, int device,
                        std::uintptr_t stream) {
    if (stream == kPerThreadStream) {
        throw std::invalid_argument("the stream of a thread by itself (2) is another one in each thread");
    }
    Problem problem = problem_of(pyramid, image, levels, batch_size, options);
    const OnDevice on(device);
    const std::size_t ordered = batch_size * problem.order_limit;
    Layout scratch;
    scratch.add(problem.found, batch_size);
    scratch.add(problem.keys, batch_size * problem.anchors);
    scratch.add(problem.ordered_keys, ordered);
    scratch.add(problem.ordered_boxes, ordered);
    scratch.add(problem.ordered_areas, ordered);
    scratch.add(problem.removed, batch_size * kChunkWords);
    scratch.add(problem.overlap, batch_size * problem.chunk_rows * kChunkWords);
    scratch.add(problem.kept, batch_size * problem.keep_limit);
    scratch.add(problem.kept_count, batch_size);
    Layout results;
    results.add(problem.offsets, batch_size + 1);
    results.add(problem.rows, batch_size * problem.keep_limit * kFaceFloats);

    DeviceFaces faces;
    faces.state_ = std::make_unique<DeviceFaces::State>();
    DeviceFaces::State& state = *faces.state_;
    state.device = device;
    state.stream = stream_of(stream);
    state.batch_size = batch_size;
    state.capacity = batch_size * problem.keep_limit;
    state.buffer = Buffer(results.bytes(), device, state.stream);
    results.place(state.buffer.get());
    state.offsets = problem.offsets;
    state.rows = problem.rows;
    const Buffer workspace(scratch.bytes(), device, state.stream);
    scratch.place(workspace.get());
    enqueue(problem, state.stream);
    return faces;
}

void wait_for(int device, std::uintptr_t stream, std::uintptr_t other) {
    const OnDevice on(device);
    cudaEvent_t event = nullptr;
    check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "create an event");
    cudaError_t status = cudaEventRecord(event, stream_of(other));
    if (status == cudaSuccess) status = cudaStreamWaitEvent(stream_of(stream), event, 0);
    static_cast<void>(cudaEventDestroy(event));  // once it has happened
    check(status, "wait for a stream");
}

int device_count() noexcept {
    int count = 0;
    if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
    static_cast<void>(cudaGetLastError());
    return 0;
}

std::string obstacle(int device) {
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    static_cast<void>(cudaGetLastError());
    if (status == cudaErrorInsufficientDriver) {
        return "there is no CUDA device: no NVIDIA driver is installed, or one that is too old for this "
               "build";
    }
    if (status != cudaSuccess) return std::string("there is no CUDA device: ") + cudaGetErrorString(status);
    if (device < 0 || device >= count || static_cast<std::size_t>(device) >= kMaxDevices) {
        return "there is no CUDA device " + std::to_string(device) + ", only " + std::to_string(count);
    }
    int has_pools = 0;
    if (cudaDeviceGetAttribute(&has_pools, cudaDevAttrMemoryPoolsSupported, device) != cudaSuccess ||
        has_pools == 0) {
        static_cast<void>(cudaGetLastError());
        return "CUDA device " + std::to_string(device) + " has no memory pools";
    }
    try {
        const OnDevice on(device);
        cudaFuncAttributes attributes{};
        check(cudaFuncGetAttributes(&attributes, retinaface_scan), "load the kernels");
    } catch (const Error& error) {
        return error.what();
    }
    return {};
}

int device_of(const void* memory) {
    cudaPointerAttributes attributes{};
    check(cudaPointerGetAttributes(&attributes, memory), "tell where memory lies");
    if (attributes.type != cudaMemoryTypeDevice && attributes.type != cudaMemoryTypeManaged) {
        throw Error("the memory lies on no CUDA device");
    }
    return attributes.device;
}

}  // namespace retinaface::cuda
