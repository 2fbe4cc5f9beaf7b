// The functions of the host for streams and events.
#include "state.hpp"

using cuda_on_cpu::call;
using cuda_on_cpu::call_on;
using cuda_on_cpu::Runtime;

cudaError_t cudaDeviceSynchronize() {
    return call("cudaDeviceSynchronize", [](Runtime& the) { return cuda_on_cpu::wait(the); });
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    return call_on("cudaStreamSynchronize", stream, nullptr,
                   [](Runtime& the, int) { return cuda_on_cpu::wait(the); });
}

// The event may be one of another device.
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
    return call_on("cudaStreamWaitEvent", stream, event, [&](Runtime& the, int) {
        if (the.events.count(event) == 0) return cudaErrorInvalidResourceHandle;
        if (flags != 0) return cudaErrorInvalidValue;
        ++the.counters.stream_waits;
        return cudaSuccess;
    });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
    return call("cudaEventCreateWithFlags", [&](Runtime& the) {
        *event = new CUevent_st{cuda_on_cpu::current_device()};
        the.events.insert(*event);
        ++the.counters.live_events;
        return cudaSuccess;
    });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    return call_on("cudaEventRecord", stream, event, [&](Runtime& the, int device) {
        const bool known = the.events.count(event) != 0 && event->device == device;
        return known ? cudaSuccess : cudaErrorInvalidResourceHandle;
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
