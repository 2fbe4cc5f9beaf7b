// What the tests of the CUDA runtime that stands in for the real one share.
#pragma once

#include "check.hpp"
#include "cuda_on_cpu.hpp"

namespace on_cpu {

inline constexpr std::uint64_t kSchedules[] = {cuda_on_cpu::kInOrder, cuda_on_cpu::kReversed, 2, 3, 12345};
inline constexpr unsigned kAll = 0xFFFFFFFFU;

template <typename... Parameters, typename... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, Arguments... arguments) {
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = block;
    return cudaLaunchKernelEx(&config, kernel, arguments...);
}

template <typename Function>
void under_all_schedules(Function function) {
    for (const std::uint64_t order : kSchedules) {
        cuda_on_cpu::schedule(order);
        function();
    }
    cuda_on_cpu::schedule(cuda_on_cpu::kInOrder);
}

// --- device memory

inline cudaMemPool_t pool() {
    static cudaMemPool_t only = nullptr;
    if (only == nullptr) {
        cudaMemPoolProps properties{};
        properties.allocType = cudaMemAllocationTypePinned;
        properties.location = {cudaMemLocationTypeDevice, 0};
        CHECK(cudaMemPoolCreate(&only, &properties) == cudaSuccess);
        std::uint64_t threshold = UINT64_MAX;
        CHECK(cudaMemPoolSetAttribute(only, cudaMemPoolAttrReleaseThreshold, &threshold) == cudaSuccess);
    }
    return only;
}

template <typename T>
class Array {
  public:
    explicit Array(std::vector<T> values) : count_(values.size()) {
        CHECK(cudaMallocFromPoolAsync(&memory_, count_ * sizeof(T), pool(), nullptr) == cudaSuccess);
        CHECK(cudaMemcpyAsync(memory_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice) ==
              cudaSuccess);
    }
    Array(const Array&) = delete;
    Array& operator=(const Array&) = delete;
    ~Array() { CHECK(cudaFreeAsync(memory_, nullptr) == cudaSuccess); }
    [[nodiscard]] T* get() const { return memory_; }
    [[nodiscard]] std::vector<T> to_host() const {
        std::vector<T> values(count_);
        CHECK(cudaMemcpy(values.data(), memory_, count_ * sizeof(T), cudaMemcpyDeviceToHost) == cudaSuccess);
        return values;
    }

  private:
    T* memory_ = nullptr;
    std::size_t count_;
};

}  // namespace on_cpu
