// What the functions of the host share: the state of the runtime, and how a call of one goes.
#pragma once

#include <mutex>
#include <set>
#include <string>
#include <utility>

#include "cuda_on_cpu.hpp"

struct CUevent_st {
    int device;
};

struct CUstream_st {
    int device;
};

namespace cuda_on_cpu {

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
    std::set<cudaStream_t> streams;
    bool all_is_device = false;
    int devices = 1;
    cudaError_t error_of_kernel = cudaSuccess;
};

Runtime& runtime();
int current_device();

// What a function returns, noted for cudaGetLastError.
cudaError_t failed(cudaError_t error);

// The fault that a test has set for this call; the lock is held.
cudaError_t fault_of(const char* name);

// Below 0 if there is no such stream.
int device_of_stream(const Runtime& the, cudaStream_t stream);

// The host waits for the device.
cudaError_t wait(Runtime& the);

// What a function does under the lock, unless a test wants it to fail.
template <typename Function>
cudaError_t call(const char* name, Function function) {
    Runtime& the = runtime();
    const std::lock_guard<std::mutex> lock(the.mutex);
    if (the.devices == 0) return failed(cudaErrorNoDevice);
    const cudaError_t fault = fault_of(name);
    return failed(fault != cudaSuccess ? fault : function(the));
}

// The same for a function that is given a stream: function(runtime, device of the stream). `object` is what
// else identifies the call in the log.
template <typename Function>
cudaError_t call_on(const char* name, cudaStream_t stream, const void* object, Function function) {
    return call(name, [&](Runtime& the) {
        the.counters.log.push_back({name, stream, current_device(), object});
        const int device = device_of_stream(the, stream);
        return device < 0 ? cudaErrorInvalidResourceHandle : function(the, device);
    });
}

}  // namespace cuda_on_cpu
