// The functions of the host for memory.
//
// Stricter than CUDA in one respect: memory of a pool is used and given back on streams of its device alone.
// What a device may do with the memory of another depends on the machine, and is never meant here.
#include <algorithm>
#include <cstdlib>

#include "state.hpp"

struct CUmemPoolHandle_st {
    int device;
};

namespace cuda_on_cpu {
namespace {

// Neither 0 nor a plausible number, and no NaN, which comparisons would hide.
constexpr int kPoison = 0xA5;
constexpr std::size_t kAlignment = 256;
constexpr std::size_t kDeviceBytes = std::size_t{2} << 30U;  // a small device

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

// Memory of a pool on a device that the stream is not on.
bool is_of_another(const Runtime& the, const void* memory, int device) {
    const Range* const range = range_of(the.allocations, memory, 1);
    return range != nullptr && range->device != device;
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

}  // namespace
}  // namespace cuda_on_cpu

using cuda_on_cpu::call;
using cuda_on_cpu::call_on;
using cuda_on_cpu::Range;
using cuda_on_cpu::Runtime;

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
cudaError_t cudaMallocFromPoolAsync(void** memory, std::size_t bytes, cudaMemPool_t pool,
                                    cudaStream_t stream) {
    return call_on("cudaMallocFromPoolAsync", stream, pool, [&](Runtime& the, int device) {
        if (pool == nullptr || bytes == 0) return cudaErrorInvalidValue;
        if (pool->device != device) return cudaErrorInvalidDevice;
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

cudaError_t cudaFreeAsync(void* memory, cudaStream_t stream) {
    return call_on("cudaFreeAsync", stream, memory, [&](Runtime& the, int device) {
        const auto found = the.allocations.find(static_cast<const char*>(memory));
        if (found == the.allocations.end()) return cudaErrorInvalidValue;
        if (found->second.device != device) return cudaErrorInvalidDevice;
        std::memset(memory, cuda_on_cpu::kPoison, found->second.bytes);
        --the.counters.live_allocations;
        the.counters.live_bytes -= found->second.bytes;
        the.allocations.erase(found);
        std::free(memory);
        return cudaSuccess;
    });
}

cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t stream) {
    return call_on("cudaMemsetAsync", stream, memory, [&](Runtime& the, int device) {
        if (bytes == 0) return cudaSuccess;
        if (!cuda_on_cpu::is_device_memory(the, memory, bytes)) return cudaErrorInvalidValue;
        if (cuda_on_cpu::is_of_another(the, memory, device)) return cudaErrorInvalidDevice;
        std::memset(memory, value, bytes);
        return cudaSuccess;
    });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
    return call_on("cudaMemcpyAsync", stream, kind == cudaMemcpyDeviceToHost ? from : to,
                   [&](Runtime& the, int device) {
                       if (cuda_on_cpu::is_of_another(the, to, device) ||
                           cuda_on_cpu::is_of_another(the, from, device)) {
                           return cudaErrorInvalidDevice;
                       }
                       return cuda_on_cpu::copy(the, to, from, bytes, kind);
                   });
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
