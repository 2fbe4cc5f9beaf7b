// The CUDA runtime that stands in for the real one: a test of the tests. Its functions, and what kernels do
// that have no bugs; test_cuda_bugs_on_cpu.cpp has those that have some.
#include <algorithm>
#include <numeric>

#include "cuda_arrays.hpp"

namespace {

using namespace on_cpu;

// --- kernels

__global__ void place_of_each(unsigned* places) {
    const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    const unsigned at = block * blockDim.x * blockDim.y * blockDim.z + thread;
    places[at] += at;
}

__global__ void __launch_bounds__(256) sums_of_blocks(const int* values, unsigned count, int* sums) {
    __shared__ int of_warps[8];
    const unsigned at = blockIdx.x * blockDim.x + threadIdx.x;
    int sum = at < count ? __ldg(values + at) : 0;
    for (unsigned apart = 16; apart > 0; apart /= 2) sum += __shfl_down_sync(kAll, sum, apart);
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x >= 32) return;
    sum = threadIdx.x < blockDim.x / 32 ? of_warps[threadIdx.x] : 0;
    for (unsigned apart = 4; apart > 0; apart /= 2) sum += __shfl_down_sync(kAll, sum, apart);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// The even ones to the front, in any order: a warp asks for its places with one atomic.
__global__ void compact_even(const unsigned* values, unsigned count, unsigned* found, unsigned* even) {
    const unsigned at = blockIdx.x * blockDim.x + threadIdx.x;
    const unsigned lane = threadIdx.x % 32;
    const bool wanted = at < count && values[at] % 2 == 0;
    const unsigned ballot = __ballot_sync(kAll, wanted);
    if (__any_sync(kAll, wanted) != (ballot != 0 ? 1 : 0)) found[1] = 1;
    if (ballot == 0) return;
    unsigned base = 0;
    if (lane == 0) base = atomicAdd(found, static_cast<unsigned>(__popc(ballot)));
    base = __shfl_sync(kAll, base, 0);
    if (wanted) even[base + static_cast<unsigned>(__popc(ballot & ((1U << lane) - 1U)))] = values[at];
}

// Running sums within a block by doubling, with two barriers to a step.
__global__ void scan_block(unsigned long long* values) {
    __shared__ unsigned long long sums[1024];
    const unsigned at = threadIdx.x;
    sums[at] = values[at];
    __syncthreads();
    for (unsigned apart = 1; apart < blockDim.x; apart *= 2) {
        const unsigned long long other = at >= apart ? sums[at - apart] : 0;
        __syncthreads();
        sums[at] += other;
        __syncthreads();
    }
    values[at] = sums[at];
}

__global__ void collectives(unsigned long long* out) {
    const unsigned lane = threadIdx.x;
    if (lane >= 40) return;  // the second warp goes on with eight lanes
    const unsigned long long wide = __shfl_sync(kAll, (1ULL << 40U) + lane, 5);
    const float number = __shfl_sync(kAll, static_cast<float>(lane) + 0.5F, 3, 8);
    const int up = __shfl_up_sync(kAll, static_cast<int>(lane), 1U);
    const unsigned crossed = __shfl_xor_sync(kAll, lane, 4);
    const int all = __all_sync(kAll, lane < 40);
    out[lane] = wide * 16 + static_cast<unsigned long long>(number * 2.0F) + static_cast<unsigned>(up) +
                crossed + static_cast<unsigned>(all);
    // Two halves of a warp, each on its own.
    if (lane < 32) {
        const unsigned mask = lane < 16 ? 0xFFFFU : 0xFFFF0000U;
        if (lane < 16) __syncwarp(mask);
        out[lane] += __ballot_sync(mask, static_cast<int>(lane % 2)) != 0 ? 1U : 0U;
    }
}

__global__ void extremes(const unsigned* values, unsigned* highest, unsigned* lowest, unsigned* bits) {
    atomicMax(highest, values[threadIdx.x]);
    atomicMin(lowest, values[threadIdx.x]);
    atomicOr(bits, values[threadIdx.x]);
}

// Which thread comes first, that depends on the schedule.
__global__ void first_come(unsigned* ticket, unsigned* order) {
    order[atomicAdd(ticket, 1U)] = blockIdx.x * blockDim.x + threadIdx.x;
}

// --- tests

void every_thread_runs_once() {
    under_all_schedules([]() {
        for (const dim3 grid : {dim3(1), dim3(3), dim3(2, 3), dim3(2, 3, 4)}) {
            for (const dim3 block : {dim3(1), dim3(33), dim3(8, 4), dim3(4, 3, 5), dim3(1024)}) {
                const std::size_t threads =
                    std::size_t{grid.x} * grid.y * grid.z * block.x * block.y * block.z;
                const Array<unsigned> places(std::vector<unsigned>(threads, 1));
                CHECK(launch(place_of_each, grid, block, places.get()) == cudaSuccess);
                std::vector<unsigned> expected(threads);
                std::iota(expected.begin(), expected.end(), 1U);
                CHECK(places.to_host() == expected);
            }
        }
    });
}

void sums() {
    under_all_schedules([]() {
        for (const unsigned threads : {32U, 64U, 256U}) {
            std::vector<int> values(1000);
            for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<int>(i * i % 97) - 40;
            const auto blocks = static_cast<unsigned>((values.size() + threads - 1) / threads);
            const Array<int> on_device(values);
            const Array<int> result(std::vector<int>(blocks, -1));
            CHECK(launch(sums_of_blocks, blocks, threads, on_device.get(), 1000U, result.get()) ==
                  cudaSuccess);
            const std::vector<int> found = result.to_host();
            for (std::size_t b = 0; b < blocks; ++b) {
                const auto begin = values.begin() + static_cast<std::ptrdiff_t>(b * threads);
                const auto end = values.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(
                                                      values.size(), (b + 1) * threads));
                CHECK(found[b] == std::accumulate(begin, end, 0));
            }
        }
    });
}

void compaction() {
    check::Random random(1);
    std::vector<unsigned> values(3000);
    for (unsigned& value : values) value = static_cast<unsigned>(random() % 100000);
    std::vector<unsigned> expected;
    for (const unsigned value : values) {
        if (value % 2 == 0) expected.push_back(value);
    }
    std::sort(expected.begin(), expected.end());
    std::vector<std::vector<unsigned>> orders;
    under_all_schedules([&]() {
        const Array<unsigned> on_device(values);
        const Array<unsigned> found({0, 0});
        const Array<unsigned> even(std::vector<unsigned>(values.size()));
        CHECK(launch(compact_even, 24, 128, on_device.get(), 3000U, found.get(), even.get()) == cudaSuccess);
        CHECK(found.to_host() == (std::vector<unsigned>{static_cast<unsigned>(expected.size()), 0}));
        std::vector<unsigned> result = even.to_host();
        result.resize(expected.size());
        orders.push_back(result);
        std::sort(result.begin(), result.end());
        CHECK(result == expected);
    });
    std::sort(orders.begin(), orders.end());
    CHECK(std::unique(orders.begin(), orders.end()) == orders.end());  // each schedule is another one
}

void scans() {
    under_all_schedules([]() {
        for (const unsigned threads : {1U, 31U, 32U, 33U, 1024U}) {
            std::vector<unsigned long long> values(threads);
            for (std::size_t i = 0; i < threads; ++i) values[i] = i * 7919 % 1000 + (1ULL << 33U);
            const Array<unsigned long long> on_device(values);
            CHECK(launch(scan_block, 1, threads, on_device.get()) == cudaSuccess);
            std::partial_sum(values.begin(), values.end(), values.begin());
            CHECK(on_device.to_host() == values);
        }
    });
}

void lanes() {
    under_all_schedules([]() {
        const Array<unsigned long long> out(std::vector<unsigned long long>(40));
        CHECK(launch(collectives, 1, 64, out.get()) == cudaSuccess);
        const std::vector<unsigned long long> found = out.to_host();
        for (unsigned lane = 0; lane < 40; ++lane) {
            const unsigned of_warp = lane / 32 * 32;
            const unsigned in_eight = lane / 8 * 8 + 3;
            const unsigned up = lane == of_warp ? lane : lane - 1;
            unsigned long long expected = ((1ULL << 40U) + of_warp + 5) * 16 + 2ULL * in_eight + 1;
            expected += up + (lane ^ 4U) + 1 + (lane < 32 ? 1 : 0);
            CHECK(found[lane] == expected);
        }
    });
}

void atomics() {
    std::vector<unsigned> values(512);
    check::Random random(2);
    for (unsigned& value : values) value = 1000 + static_cast<unsigned>(random() % 100000);
    const Array<unsigned> on_device(values);
    const Array<unsigned> results({0, kAll, 0});
    CHECK(launch(extremes, 1, 512, on_device.get(), results.get(), results.get() + 1, results.get() + 2) ==
          cudaSuccess);
    const std::vector<unsigned> found = results.to_host();
    CHECK(found[0] == *std::max_element(values.begin(), values.end()));
    CHECK(found[1] == *std::min_element(values.begin(), values.end()));
    CHECK(found[2] ==
          std::accumulate(values.begin(), values.end(), 0U, [](unsigned a, unsigned b) { return a | b; }));
    CHECK(__ffs(0) == 0 && __ffs(8) == 4 && __ffsll(1LL << 40U) == 41 && __clz(1) == 31 && __clz(0) == 32);
    CHECK(__popc(kAll) == 32 && __popcll(~0ULL) == 64 && min(1U, 2U) == 1U && max(-1, 2) == 2);
}

void schedules() {
    std::vector<unsigned> ascending(8 * 64);
    std::iota(ascending.begin(), ascending.end(), 0U);
    const auto order_of = [&](std::uint64_t order) {
        cuda_on_cpu::schedule(order);
        const Array<unsigned> ticket({0});
        const Array<unsigned> result(std::vector<unsigned>(ascending.size()));
        CHECK(launch(first_come, 8, 64, ticket.get(), result.get()) == cudaSuccess);
        return result.to_host();
    };
    CHECK(order_of(cuda_on_cpu::kInOrder) == ascending);
    CHECK(order_of(cuda_on_cpu::kReversed) == std::vector<unsigned>(ascending.rbegin(), ascending.rend()));
    const std::vector<unsigned> shuffled = order_of(9);
    CHECK(shuffled == order_of(9) && shuffled != order_of(10) && shuffled != ascending);
    std::vector<unsigned> sorted = shuffled;
    std::sort(sorted.begin(), sorted.end());
    CHECK(sorted == ascending);
    cuda_on_cpu::schedule(cuda_on_cpu::kInOrder);
}

void memory() {
    cuda_on_cpu::reset_counters();
    {
        const Array<int> first(std::vector<int>(100));
        const Array<int> second(std::vector<int>(50));
        CHECK(cuda_on_cpu::counters().live_allocations == 2);
        CHECK(cuda_on_cpu::counters().live_bytes == 600);
        CHECK(cudaFreeAsync(first.get() + 1, nullptr) == cudaErrorInvalidValue);
        CHECK(cudaMemsetAsync(first.get(), 0, 401) == cudaErrorInvalidValue);
        int here = 0;
        CHECK(cudaMemcpyAsync(&here, &here, 4, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
        CHECK(cudaMemcpyAsync(first.get(), second.get(), 4, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
        CHECK(cudaGetLastError() == cudaErrorInvalidValue && cudaGetLastError() == cudaSuccess);
        CHECK(first.to_host() == std::vector<int>(100));
        int* fresh = nullptr;
        CHECK(cudaMallocFromPoolAsync(&fresh, 4, pool(), nullptr) == cudaSuccess);
        CHECK(cudaMemcpyAsync(&here, fresh, 4, cudaMemcpyDeviceToHost) == cudaSuccess);
        CHECK(here == static_cast<int>(0xA5A5A5A5U));
        CHECK(cudaFreeAsync(fresh, nullptr) == cudaSuccess);

        cudaPointerAttributes attributes{};
        CHECK(cudaPointerGetAttributes(&attributes, first.get() + 99) == cudaSuccess);
        CHECK(attributes.type == cudaMemoryTypeDevice && attributes.device == 0);
        CHECK(cudaPointerGetAttributes(&attributes, &here) == cudaSuccess);
        CHECK(attributes.type == cudaMemoryTypeUnregistered);
        cuda_on_cpu::register_device_memory(&here, sizeof here, 1);
        CHECK(cudaPointerGetAttributes(&attributes, &here) == cudaSuccess);
        CHECK(attributes.type == cudaMemoryTypeDevice && attributes.device == 1);
        cuda_on_cpu::unregister_device_memory(&here);
        cuda_on_cpu::treat_all_memory_as_device(true);
        CHECK(cudaPointerGetAttributes(&attributes, &here) == cudaSuccess);
        CHECK(attributes.type == cudaMemoryTypeDevice);
        cuda_on_cpu::treat_all_memory_as_device(false);
    }
    const cuda_on_cpu::Counters counters = cuda_on_cpu::counters();
    CHECK(counters.live_allocations == 0 && counters.live_bytes == 0 && counters.peak_bytes == 604);
    CHECK(counters.allocations == 3);
    CHECK(counters.copies_to_host == 2 && counters.bytes_to_host == 404 && counters.synchronisations == 1);
}

void faults() {
    cuda_on_cpu::reset_counters();
    const Array<unsigned> places({0, 0});
    cuda_on_cpu::fail_next("cudaLaunchKernelEx", cudaErrorLaunchFailure);
    CHECK(launch(place_of_each, 1, 2, places.get()) == cudaErrorLaunchFailure);
    CHECK(cudaPeekAtLastError() == cudaErrorLaunchFailure && cudaGetLastError() == cudaErrorLaunchFailure);
    CHECK(cuda_on_cpu::counters().launches == 0);
    CHECK(launch(place_of_each, 1, 2, places.get()) == cudaSuccess);
    CHECK(launch(place_of_each, 1, 2, places.get()) == cudaSuccess);
    CHECK(cuda_on_cpu::counters().launches == 2);
    CHECK(cuda_on_cpu::counters().launches_of.at(reinterpret_cast<const void*>(&place_of_each)) == 2);
    cuda_on_cpu::fail_after("cudaMallocFromPoolAsync", 1, cudaErrorMemoryAllocation);
    void* first = nullptr;
    void* second = nullptr;
    CHECK(cudaMallocFromPoolAsync(&first, 8, pool(), nullptr) == cudaSuccess);
    CHECK(cudaMallocFromPoolAsync(&second, 8, pool(), nullptr) == cudaErrorMemoryAllocation);
    CHECK(cudaFreeAsync(first, nullptr) == cudaSuccess);
    cuda_on_cpu::fail_next("kernel", cudaErrorIllegalAddress);
    CHECK(launch(place_of_each, 1, 2, places.get()) == cudaSuccess);
    CHECK(cudaStreamSynchronize(nullptr) == cudaErrorIllegalAddress);
    CHECK(cudaStreamSynchronize(nullptr) == cudaSuccess);
    for (const dim3 block : {dim3(0), dim3(1025), dim3(32, 33), dim3(1, 1, 65)}) {
        CHECK(launch(place_of_each, 1, block, places.get()) == cudaErrorInvalidConfiguration);
    }
    for (const dim3 grid : {dim3(0), dim3(1, 65536), dim3(1, 1, 65536)}) {
        CHECK(launch(place_of_each, grid, 1, places.get()) == cudaErrorInvalidConfiguration);
    }
    CHECK(std::strcmp(cudaGetErrorName(cudaErrorNoDevice), "cudaErrorNoDevice") == 0);
    cuda_on_cpu::set_device_count(0);
    int number = -1;
    CHECK(cudaGetDeviceCount(&number) == cudaErrorNoDevice && number == 0);
    cuda_on_cpu::set_device_count(2);
    CHECK(cudaSetDevice(2) == cudaErrorInvalidDevice && cudaSetDevice(1) == cudaSuccess);
    CHECK(cudaGetDevice(&number) == cudaSuccess && number == 1 && cudaSetDevice(0) == cudaSuccess);
    cuda_on_cpu::set_device_count(1);
    cudaEvent_t event = nullptr;
    CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess);
    CHECK(cudaEventRecord(event) == cudaSuccess && cudaStreamWaitEvent(nullptr, event) == cudaSuccess);
    CHECK(cuda_on_cpu::counters().stream_waits == 1 && cuda_on_cpu::counters().live_events == 1);
    CHECK(cudaEventDestroy(event) == cudaSuccess && cuda_on_cpu::counters().live_events == 0);
    cuda_on_cpu::clear_faults();
}

// A stream is of a device, and an event is of the one that was the current one.
void streams() {
    cuda_on_cpu::reset_counters();
    cuda_on_cpu::set_device_count(2);
    const Array<unsigned> places({0, 0});
    const cudaStream_t stream = cuda_on_cpu::create_stream(1);
    cudaLaunchConfig_t config{};
    config.gridDim = 1;
    config.blockDim = 2;
    config.stream = stream;
    const auto launched = [&]() { return cudaLaunchKernelEx(&config, place_of_each, places.get()); };
    cudaEvent_t event = nullptr;
    CHECK(launched() == cudaErrorInvalidResourceHandle && cuda_on_cpu::counters().launches == 0);
    CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess);
    CHECK(cudaEventRecord(event, stream) == cudaErrorInvalidResourceHandle);
    CHECK(cudaEventRecord(event) == cudaSuccess && cudaStreamWaitEvent(stream, event) == cudaSuccess);
    CHECK(cudaMemsetAsync(places.get(), 0, 4, stream) == cudaErrorInvalidDevice);
    CHECK(cudaFreeAsync(places.get(), stream) == cudaErrorInvalidDevice);
    void* memory = nullptr;
    CHECK(cudaMallocFromPoolAsync(&memory, 4, pool(), stream) == cudaErrorInvalidDevice);
    int here = 0;
    CHECK(cudaMemcpyAsync(&here, places.get(), 4, cudaMemcpyDeviceToHost, stream) == cudaErrorInvalidDevice);
    CHECK(cudaSetDevice(1) == cudaSuccess);
    CHECK(cudaMemsetAsync(places.get(), 0, 4) == cudaErrorInvalidDevice);  // the default stream of device 1
    CHECK(cudaEventRecord(event) == cudaErrorInvalidResourceHandle);
    CHECK(launched() == cudaSuccess && cudaStreamSynchronize(stream) == cudaSuccess);
    const std::vector<cuda_on_cpu::StreamCall> log = cuda_on_cpu::counters().log;
    CHECK(std::strcmp(log.back().name, "cudaStreamSynchronize") == 0 && log.back().device == 1);
    CHECK(log.back().stream == stream);
    CHECK(cudaSetDevice(0) == cudaSuccess && cudaEventDestroy(event) == cudaSuccess);
    cuda_on_cpu::destroy_stream(stream);
    CHECK(cudaStreamSynchronize(stream) == cudaErrorInvalidResourceHandle);
    cuda_on_cpu::set_device_count(1);
    cuda_on_cpu::clear_faults();
}

}  // namespace

CHECK_MAIN(every_thread_runs_once, sums, compaction, scans, lanes, atomics, schedules, memory, faults,
           streams)
