// The functions of the host for devices, errors and launches, and what a test may ask and set. What the host
// would have to wait for is done when a function returns; what is worth knowing is counted.
#include "runtime.hpp"

#include <algorithm>

#include "state.hpp"

namespace cuda_on_cpu {

// Never destroyed: objects with static lifetime may give memory back after main.
Runtime& runtime() {
    static Runtime* const only = new Runtime;
    return *only;
}

namespace {

// cudaStreamLegacy is 1, and cudaStreamPerThread 2: streams of the current device, like 0.
constexpr std::uintptr_t kPerThreadStream = 2;

thread_local int device_of_thread = 0;
thread_local cudaError_t last_error = cudaSuccess;

}  // namespace

int current_device() { return device_of_thread; }

cudaError_t failed(cudaError_t error) {
    if (error != cudaSuccess) last_error = error;
    return error;
}

cudaError_t fault_of(const char* name) {
    auto& faults = runtime().faults;
    const auto found = faults.find(name);
    if (found == faults.end()) return cudaSuccess;
    if (found->second.calls_before-- > 0) return cudaSuccess;
    const cudaError_t error = found->second.error;
    faults.erase(found);
    return error;
}

int device_of_stream(const Runtime& the, cudaStream_t stream) {
    const auto number = reinterpret_cast<std::uintptr_t>(stream);
    if (number <= kPerThreadStream) return current_device();
    if (the.streams.count(stream) != 0) return stream->device;
    return the.all_is_device ? current_device() : -1;
}

cudaError_t wait(Runtime& the) {
    ++the.counters.synchronisations;
    return std::exchange(the.error_of_kernel, cudaSuccess);
}

namespace {

struct ErrorText {
    cudaError_t error;
    const char* name;
    const char* text;
};

constexpr ErrorText kErrors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver", "driver older than the runtime"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no device"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorNoKernelImageForDevice, "cudaErrorNoKernelImageForDevice", "no kernel for this device"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "illegal memory access"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "launch failure"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
};

const ErrorText& text_of(cudaError_t error) {
    static constexpr ErrorText unknown{cudaErrorNotSupported, "unknown", "unknown error"};
    const auto* const found = std::find_if(std::begin(kErrors), std::end(kErrors),
                                           [error](const ErrorText& one) { return one.error == error; });
    return found == std::end(kErrors) ? unknown : *found;
}

}  // namespace

Counters counters() {
    const std::lock_guard<std::mutex> lock(runtime().mutex);
    return runtime().counters;
}

void reset_counters() {
    const std::lock_guard<std::mutex> lock(runtime().mutex);
    Counters& old = runtime().counters;
    Counters fresh;
    fresh.live_allocations = old.live_allocations;
    fresh.live_bytes = fresh.peak_bytes = old.live_bytes;
    fresh.live_events = old.live_events;
    old = std::move(fresh);
}

void fail_next(const char* name, cudaError_t error) { fail_after(name, 0, error); }

void fail_after(const char* name, std::size_t calls, cudaError_t error) {
    const std::lock_guard<std::mutex> lock(runtime().mutex);
    runtime().faults[name] = {calls, error};
}

void clear_faults() {
    const std::lock_guard<std::mutex> lock(runtime().mutex);
    runtime().faults.clear();
    runtime().error_of_kernel = cudaSuccess;
    last_error = cudaSuccess;
}

void register_device_memory(const void* memory, std::size_t bytes, int device) {
    const std::lock_guard<std::mutex> lock(runtime().mutex);
    runtime().registered[static_cast<const char*>(memory)] = {bytes, device};
}

void unregister_device_memory(const void* memory) {
    const std::lock_guard<std::mutex> lock(runtime().mutex);
    runtime().registered.erase(static_cast<const char*>(memory));
}

void treat_all_memory_as_device(bool enabled) {
    const std::lock_guard<std::mutex> lock(runtime().mutex);
    runtime().all_is_device = enabled;
}

cudaStream_t create_stream(int device) {
    const std::lock_guard<std::mutex> lock(runtime().mutex);
    const cudaStream_t stream = new CUstream_st{device};
    runtime().streams.insert(stream);
    return stream;
}

void destroy_stream(cudaStream_t stream) {
    const std::lock_guard<std::mutex> lock(runtime().mutex);
    if (runtime().streams.erase(stream) != 0) delete stream;
}

void set_device_count(int count) {
    const std::lock_guard<std::mutex> lock(runtime().mutex);
    runtime().devices = count;
}

cudaError_t launch(const cudaLaunchConfig_t* config, const void* kernel, void (*body)(const void*),
                   const void* argument) {
    if (config == nullptr || kernel == nullptr) return failed(cudaErrorInvalidValue);
    const auto enqueue = [&](Runtime& the, int device) {
        if (device != current_device()) return cudaErrorInvalidResourceHandle;
        ++the.counters.launches;
        ++the.counters.launches_of[kernel];
        const cudaError_t fault = fault_of("kernel");
        if (fault != cudaSuccess) the.error_of_kernel = fault;
        return cudaSuccess;
    };
    const cudaError_t refused = call_on("cudaLaunchKernelEx", config->stream, kernel, enqueue);
    return refused != cudaSuccess ? refused : failed(run_grid(*config, body, argument));
}

}  // namespace cuda_on_cpu

using cuda_on_cpu::call;
using cuda_on_cpu::Runtime;

const char* cudaGetErrorName(cudaError_t error) { return cuda_on_cpu::text_of(error).name; }
const char* cudaGetErrorString(cudaError_t error) { return cuda_on_cpu::text_of(error).text; }
cudaError_t cudaPeekAtLastError() { return cuda_on_cpu::last_error; }
cudaError_t cudaGetLastError() { return std::exchange(cuda_on_cpu::last_error, cudaSuccess); }

// --- devices

cudaError_t cudaGetDeviceCount(int* count) {
    *count = 0;
    return call("cudaGetDeviceCount", [&](Runtime& the) {
        *count = the.devices;
        return cudaSuccess;
    });
}

cudaError_t cudaGetDevice(int* device) {
    return call("cudaGetDevice", [&](Runtime&) {
        *device = cuda_on_cpu::device_of_thread;
        return cudaSuccess;
    });
}

cudaError_t cudaSetDevice(int device) {
    return call("cudaSetDevice", [&](Runtime& the) {
        if (device < 0 || device >= the.devices) return cudaErrorInvalidDevice;
        cuda_on_cpu::device_of_thread = device;
        return cudaSuccess;
    });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
    return call("cudaDeviceGetAttribute", [&](Runtime& the) {
        if (device < 0 || device >= the.devices) return cudaErrorInvalidDevice;
        switch (attribute) {
            case cudaDevAttrMultiProcessorCount:
                *value = 4;
                return cudaSuccess;
            case cudaDevAttrComputeCapabilityMajor:
                *value = 9;
                return cudaSuccess;
            case cudaDevAttrComputeCapabilityMinor:
                *value = 0;
                return cudaSuccess;
            case cudaDevAttrMemoryPoolsSupported:
                *value = 1;
                return cudaSuccess;
        }
        return cudaErrorInvalidValue;
    });
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* kernel) {
    return call("cudaFuncGetAttributes", [&](Runtime&) {
        if (kernel == nullptr) return cudaErrorInvalidValue;
        *attributes = {};
        attributes->maxThreadsPerBlock = 1024;
        attributes->ptxVersion = attributes->binaryVersion = 90;
        return cudaSuccess;
    });
}
