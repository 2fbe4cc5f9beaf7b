// The functions of the host: memory, streams, events, devices, errors. What the host would have to wait for
// is done when a function returns; what is worth knowing is counted.
#include "runtime.hpp"

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <set>
#include <string>

struct CUevent_st {};

struct CUmemPoolHandle_st {
    int device;
};

namespace cuda_on_cpu {
namespace {

// Neither 0 nor a plausible number, and no NaN, which comparisons would hide.
constexpr int kPoison = 0xA5;
constexpr std::size_t kAlignment = 256;
constexpr std::size_t kDeviceBytes = std::size_t{2} << 30U;  // a small device

struct Range {
    std::size_t bytes;
    int device;
};

struct Fault {
    std::size_t calls_before;
    cudaError_t error;
};

struct Runtime {
    std::mutex mutex;
    Counters counters;
    std::map<const char*, Range> allocations;
    std::map<const char*, Range> registered;
    std::map<std::string, Fault> faults;
    std::set<cudaEvent_t> events;
    bool all_is_device = false;
    int devices = 1;
    cudaError_t error_of_kernel = cudaSuccess;
};

// Never destroyed: objects with static lifetime may give memory back after main.
Runtime& runtime() {
    static Runtime* const only = new Runtime;
    return *only;
}

thread_local int current_device = 0;
thread_local cudaError_t last_error = cudaSuccess;

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

// What a function does under the lock, unless a test wants it to fail.
template <typename Function>
cudaError_t call(const char* name, Function function) {
    Runtime& the = runtime();
    const std::lock_guard<std::mutex> lock(the.mutex);
    if (the.devices == 0) return failed(cudaErrorNoDevice);
    const cudaError_t fault = fault_of(name);
    return failed(fault != cudaSuccess ? fault : function(the));
}

// The range that holds all of `bytes` from `memory` on.
const Range* range_of(const std::map<const char*, Range>& ranges, const void* memory, std::size_t bytes) {
    const char* const begin = static_cast<const char*>(memory);
    auto next = ranges.upper_bound(begin);
    if (next == ranges.begin()) return nullptr;
    --next;
    const auto offset = static_cast<std::size_t>(begin - next->first);
    const bool within = offset < next->second.bytes && bytes <= next->second.bytes - offset;
    return within ? &next->second : nullptr;
}

bool is_device_memory(const Runtime& the, const void* memory, std::size_t bytes) {
    return the.all_is_device || range_of(the.allocations, memory, bytes) != nullptr ||
           range_of(the.registered, memory, bytes) != nullptr;
}

// Memory of the library's own pool is never the host's, whatever a test declares.
bool is_host_memory(const Runtime& the, const void* memory, std::size_t bytes) {
    return range_of(the.allocations, memory, bytes) == nullptr;
}

cudaError_t wait(Runtime& the) {
    ++the.counters.synchronisations;
    return std::exchange(the.error_of_kernel, cudaSuccess);
}

cudaError_t copy(Runtime& the, void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
    if (bytes == 0) return cudaSuccess;
    const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    if (kind == cudaMemcpyDefault || to == nullptr || from == nullptr) return cudaErrorInvalidValue;
    if (!(from_device ? is_device_memory(the, from, bytes) : is_host_memory(the, from, bytes)) ||
        !(to_device ? is_device_memory(the, to, bytes) : is_host_memory(the, to, bytes))) {
        return cudaErrorInvalidValue;
    }
    if (kind == cudaMemcpyDeviceToHost) {
        ++the.counters.copies_to_host;
        the.counters.bytes_to_host += bytes;
    }
    std::memcpy(to, from, bytes);
    return cudaSuccess;
}

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
    old = fresh;
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

void set_device_count(int count) {
    const std::lock_guard<std::mutex> lock(runtime().mutex);
    runtime().devices = count;
}

cudaError_t launch(const cudaLaunchConfig_t* config, const void* kernel, void (*body)(const void*),
                   const void* argument) {
    const cudaError_t refused = call("cudaLaunchKernelEx", [&](Runtime& the) {
        if (config == nullptr || kernel == nullptr) return cudaErrorInvalidValue;
        ++the.counters.launches;
        ++the.counters.launches_of[kernel];
        const cudaError_t fault = fault_of("kernel");
        if (fault != cudaSuccess) the.error_of_kernel = fault;
        return cudaSuccess;
    });
    return refused != cudaSuccess ? refused : failed(run_grid(*config, body, argument));
}

}  // namespace cuda_on_cpu

using cuda_on_cpu::call;
using cuda_on_cpu::Range;
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
        *device = cuda_on_cpu::current_device;
        return cudaSuccess;
    });
}

cudaError_t cudaSetDevice(int device) {
    return call("cudaSetDevice", [&](Runtime& the) {
        if (device < 0 || device >= the.devices) return cudaErrorInvalidDevice;
        cuda_on_cpu::current_device = device;
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

// --- streams and events

cudaError_t cudaDeviceSynchronize() {
    return call("cudaDeviceSynchronize", [](Runtime& the) { return cuda_on_cpu::wait(the); });
}

cudaError_t cudaStreamSynchronize(cudaStream_t) {
    return call("cudaStreamSynchronize", [](Runtime& the) { return cuda_on_cpu::wait(the); });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t event, unsigned flags) {
    return call("cudaStreamWaitEvent", [&](Runtime& the) {
        if (the.events.count(event) == 0) return cudaErrorInvalidResourceHandle;
        if (flags != 0) return cudaErrorInvalidValue;
        ++the.counters.stream_waits;
        return cudaSuccess;
    });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
    return call("cudaEventCreateWithFlags", [&](Runtime& the) {
        *event = new CUevent_st;
        the.events.insert(*event);
        ++the.counters.live_events;
        return cudaSuccess;
    });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
    return call("cudaEventRecord", [&](Runtime& the) {
        return the.events.count(event) == 0 ? cudaErrorInvalidResourceHandle : cudaSuccess;
    });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    return call("cudaEventSynchronize", [&](Runtime& the) {
        return the.events.count(event) == 0 ? cudaErrorInvalidResourceHandle : cuda_on_cpu::wait(the);
    });
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    return call("cudaEventDestroy", [&](Runtime& the) {
        if (the.events.erase(event) == 0) return cudaErrorInvalidResourceHandle;
        delete event;
        --the.counters.live_events;
        return cudaSuccess;
    });
}

// --- memory

cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* properties) {
    return call("cudaMemPoolCreate", [&](Runtime& the) {
        if (properties->allocType != cudaMemAllocationTypePinned ||
            properties->location.type != cudaMemLocationTypeDevice) {
            return cudaErrorInvalidValue;
        }
        if (properties->location.id < 0 || properties->location.id >= the.devices)
            return cudaErrorInvalidDevice;
        *pool = new CUmemPoolHandle_st{properties->location.id};
        return cudaSuccess;
    });
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
    return call("cudaMemPoolSetAttribute", [&](Runtime&) {
        const bool known =
            pool != nullptr && attribute == cudaMemPoolAttrReleaseThreshold && value != nullptr;
        return known ? cudaSuccess : cudaErrorInvalidValue;
    });
}

cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool) {
    return call("cudaMemPoolDestroy", [&](Runtime&) {
        delete pool;
        return cudaSuccess;
    });
}

// Of exactly this size, for AddressSanitizer to see what lies beyond.
cudaError_t cudaMallocFromPoolAsync(void** memory, std::size_t bytes, cudaMemPool_t pool, cudaStream_t) {
    return call("cudaMallocFromPoolAsync", [&](Runtime& the) {
        if (pool == nullptr || bytes == 0) return cudaErrorInvalidValue;
        if (bytes > cuda_on_cpu::kDeviceBytes - the.counters.live_bytes) return cudaErrorMemoryAllocation;
        if (posix_memalign(memory, cuda_on_cpu::kAlignment, bytes) != 0) return cudaErrorMemoryAllocation;
        std::memset(*memory, cuda_on_cpu::kPoison, bytes);
        the.allocations[static_cast<const char*>(*memory)] = {bytes, pool->device};
        cuda_on_cpu::Counters& counters = the.counters;
        ++counters.allocations;
        ++counters.live_allocations;
        counters.live_bytes += bytes;
        counters.peak_bytes = std::max(counters.peak_bytes, counters.live_bytes);
        return cudaSuccess;
    });
}

cudaError_t cudaFreeAsync(void* memory, cudaStream_t) {
    return call("cudaFreeAsync", [&](Runtime& the) {
        const auto found = the.allocations.find(static_cast<const char*>(memory));
        if (found == the.allocations.end()) return cudaErrorInvalidValue;
        std::memset(memory, cuda_on_cpu::kPoison, found->second.bytes);
        --the.counters.live_allocations;
        the.counters.live_bytes -= found->second.bytes;
        the.allocations.erase(found);
        std::free(memory);
        return cudaSuccess;
    });
}

cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t) {
    return call("cudaMemsetAsync", [&](Runtime& the) {
        if (bytes == 0) return cudaSuccess;
        if (!cuda_on_cpu::is_device_memory(the, memory, bytes)) return cudaErrorInvalidValue;
        std::memset(memory, value, bytes);
        return cudaSuccess;
    });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t) {
    return call("cudaMemcpyAsync",
                [&](Runtime& the) { return cuda_on_cpu::copy(the, to, from, bytes, kind); });
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
    return call("cudaMemcpy", [&](Runtime& the) {
        const cudaError_t before = cuda_on_cpu::wait(the);
        return before != cudaSuccess ? before : cuda_on_cpu::copy(the, to, from, bytes, kind);
    });
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* memory) {
    return call("cudaPointerGetAttributes", [&](Runtime& the) {
        const Range* range = cuda_on_cpu::range_of(the.allocations, memory, 1);
        if (range == nullptr) range = cuda_on_cpu::range_of(the.registered, memory, 1);
        *attributes = {cudaMemoryTypeUnregistered, -2, nullptr, nullptr};
        if (range == nullptr && !the.all_is_device) return cudaSuccess;
        *attributes = {cudaMemoryTypeDevice, range != nullptr ? range->device : 0, const_cast<void*>(memory),
                       nullptr};
        return cudaSuccess;
    });
}
