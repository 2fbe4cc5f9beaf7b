// What a test may ask of the CUDA runtime that stands in for the real one, and set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include <cuda_runtime.h>

namespace cuda_on_cpu {

// A call that was given a stream, whether it succeeded or not.
struct StreamCall {
    const char* name;
    cudaStream_t stream;
    int device;          // that was the current one
    const void* object;  // a kernel, an event, a pool, device memory; null: nothing
};

// What has happened since reset_counters(). What is alive stays counted.
struct Counters {
    std::size_t launches = 0;
    std::map<const void*, std::size_t> launches_of;  // by the address of the kernel
    std::size_t synchronisations = 0;                // where the host would wait for the device
    std::size_t stream_waits = 0;                    // cudaStreamWaitEvent
    std::size_t copies_to_host = 0;
    std::size_t bytes_to_host = 0;
    std::size_t allocations = 0;
    std::size_t live_allocations = 0;
    std::size_t live_bytes = 0;
    std::size_t peak_bytes = 0;
    std::size_t live_events = 0;
    std::vector<StreamCall> log;
};

[[nodiscard]] Counters counters();
void reset_counters();

// The order in which blocks, and the threads of a block between two points where they wait, take turns: by
// index, from the last to the first, or pseudo-random. Any other number is the seed of the last.
inline constexpr std::uint64_t kInOrder = 0;
inline constexpr std::uint64_t kReversed = 1;
void schedule(std::uint64_t order);

// The next call of a function of CUDA by this name returns `error` and does nothing else; fail_after lets
// `calls` pass before. One fault for each name. A fault of "kernel" is one that a launched kernel meets: the
// next function that waits for the stream returns it.
void fail_next(const char* name, cudaError_t error);
void fail_after(const char* name, std::size_t calls, cudaError_t error);
void clear_faults();

// Memory that was not allocated here but counts as device memory.
void register_device_memory(const void* memory, std::size_t bytes, int device = 0);
void unregister_device_memory(const void* memory);
void treat_all_memory_as_device(bool enabled);

// A stream of a device. 0, 1 and 2 are those of the current device that CUDA has by itself; any other number
// is no stream, or one of the current device while all memory is a device's.
[[nodiscard]] cudaStream_t create_stream(int device);
void destroy_stream(cudaStream_t stream);

// 1 unless set; without any, every function says cudaErrorNoDevice.
void set_device_count(int count);

}  // namespace cuda_on_cpu
