// What post-processing on a device does besides: what it asks of CUDA, on which stream and device, and what
// becomes of it when CUDA refuses.
#include "cuda_batches.hpp"

namespace {

using namespace batches;

void nothing_waits_unless_asked() {
    const Batch batch = random_batch({217, 333}, 3, 1.0F, 110);
    static_cast<void>(enqueue(batch, {}));  // the pool is there
    cuda_on_cpu::reset_counters();
    {
        cuda::DeviceFaces faces = enqueue(batch, {});
        cuda_on_cpu::Counters counters = cuda_on_cpu::counters();
        CHECK(counters.synchronisations == 0 && counters.copies_to_host == 0 && counters.launches > 0);
        CHECK(counters.live_allocations == 1);  // the results; the workspace has gone back
        CHECK(faces.batch_size() == 3 && faces.capacity() == 3 * 750 && faces.device() == 0);
        CHECK(cuda::device_of(faces.rows()) == 0 && cuda::device_of(faces.offsets()) == 0);

        const cuda::HostFaces on_host = faces.to_host();
        counters = cuda_on_cpu::counters();
        const bool fits = on_host.offsets.back() <= 1024;
        CHECK(counters.synchronisations == (fits ? 1 : 2) && counters.copies_to_host == (fits ? 1 : 2));

        cuda::DeviceFaces moved = std::move(faces);
        faces = enqueue(batch, {});
        CHECK(same(moved.to_host(), on_host) && same(faces.to_host(), on_host));
        CHECK(cuda_on_cpu::counters().live_allocations == 2);
        moved = cuda::DeviceFaces();
    }
    CHECK(cuda_on_cpu::counters().live_allocations == 0);
    CHECK(cuda_on_cpu::counters().allocations == 4);
}

// One copy up to a thousand faces; beyond, a second one brings the rest.
void copies() {
    for (const std::size_t keep_top_k : {1023U, 1024U, 1025U, 3000U}) {
        const Batch batch = random_batch({217, 333}, 1, 1.0F, 120);
        const PostprocessOptions options = options_with(0, keep_top_k, 1.0);
        const cuda::DeviceFaces faces = enqueue(batch, options);
        cuda_on_cpu::reset_counters();
        CHECK(same(faces.to_host(), expected_faces(batch, options)));
        const std::size_t copied = keep_top_k > 1024 ? 2 : 1;
        CHECK(cuda_on_cpu::counters().copies_to_host == copied);
        CHECK(cuda_on_cpu::counters().synchronisations == copied);
    }
}

template <typename Exception, typename Function>
bool throws(Function function) {
    try {
        function();
    } catch (const Exception&) {
        return true;
    } catch (const std::exception&) {
        return false;
    }
    return false;
}

void beyond_the_limits() {
    const auto refused = [](const AnchorPyramid& pyramid, ImageSize image, std::size_t batch_size,
                            const PostprocessOptions& options) {
        const std::vector<cuda::DeviceLevel> levels(pyramid.levels().size());
        return throws<std::invalid_argument>([&]() {
            static_cast<void>(cuda::postprocess(pyramid, image, levels.data(), batch_size, options, 0, 0));
        });
    };
    cuda_on_cpu::reset_counters();
    const ImageSize image{64, 64};
    CHECK(refused(AnchorPyramid(std::vector<AnchorLevel>(9, {8, {16}})), image, 1, {}));
    CHECK(refused(one_level(8, std::vector<float>(9, 16)), image, 1, {}));
    CHECK(refused(kPyramid, image, 0, {}));
    CHECK(refused(kPyramid, image, cuda::kMaxBatch + 1, {}));
    CHECK(refused(one_level(1, {16}), {std::size_t{1} << 16U, std::size_t{1} << 16U}, 1, {}));
    CHECK(refused(kPyramid, {1280, 1280}, cuda::kMaxBatch, options_with(0, 0)));
    CHECK(cuda_on_cpu::counters().allocations == 0 && cuda_on_cpu::counters().launches == 0);
}

// Every call of CUDA fails once; nothing is lost, and the next batch is as ever.
void failures() {
    const Batch batch = random_batch({96, 160}, 2, 0.5F, 130);
    const cuda::HostFaces expected = expected_faces(batch, {});
    CHECK(same(enqueue(batch, {}).to_host(), expected));
    cuda_on_cpu::reset_counters();
    for (const char* const name : {"cudaMallocFromPoolAsync", "cudaMemsetAsync", "cudaLaunchKernelEx",
                                   "cudaMemcpyAsync", "cudaStreamSynchronize"}) {
        std::size_t failed = 0;
        for (std::size_t calls = 0; calls < 32; ++calls) {
            cuda_on_cpu::clear_faults();
            cuda_on_cpu::fail_after(name, calls, cudaErrorMemoryAllocation);
            if (!throws<cuda::Error>([&]() { CHECK(same(enqueue(batch, {}).to_host(), expected)); })) break;
            ++failed;
            CHECK(cudaPeekAtLastError() == cudaSuccess);
            cuda_on_cpu::clear_faults();
            CHECK(cuda_on_cpu::counters().live_allocations == 0);
        }
        CHECK(failed > 0 && failed < 32);
    }
    cuda_on_cpu::clear_faults();
    cuda_on_cpu::fail_next("cudaGetDevice", cudaErrorInsufficientDriver);
    CHECK(throws<cuda::Error>([&]() { static_cast<void>(enqueue(batch, {})); }));
    {
        cuda_on_cpu::fail_next("kernel", cudaErrorIllegalAddress);
        const cuda::DeviceFaces faces = enqueue(batch, {});
        CHECK(throws<cuda::Error>([&]() { static_cast<void>(faces.to_host()); }));
    }
    CHECK(same(enqueue(batch, {}).to_host(), expected));
    CHECK(cuda_on_cpu::counters().live_allocations == 0);
}

void devices() {
    const Batch batch = random_batch({31, 33}, 2, 1.0F, 140);
    CHECK(cuda::device_count() == 1 && cuda::obstacle(0).empty());
    CHECK(!cuda::obstacle(1).empty() && !cuda::obstacle(-1).empty());
    CHECK(throws<cuda::Error>([&]() { static_cast<void>(enqueue(batch, {}, 1)); }));
    cuda_on_cpu::set_device_count(2);
    int current = -1;
    {
        const cuda::DeviceFaces faces = enqueue(batch, {}, 1);
        CHECK(faces.device() == 1 && cuda::device_of(faces.rows()) == 1);
        CHECK(cudaGetDevice(&current) == cudaSuccess && current == 0);
        CHECK(same(faces.to_host(), expected_faces(batch, {})));
    }
    CHECK(cudaGetDevice(&current) == cudaSuccess && current == 0);
    CHECK(cuda_on_cpu::counters().live_allocations == 0);
    cuda_on_cpu::set_device_count(0);
    CHECK(cuda::device_count() == 0 && !cuda::obstacle(0).empty());
    cuda_on_cpu::set_device_count(1);
    CHECK(cudaPeekAtLastError() == cudaErrorNoDevice || cudaPeekAtLastError() == cudaSuccess);

    CHECK(throws<cuda::Error>([&]() { static_cast<void>(cuda::device_of(&current)); }));
    cuda_on_cpu::reset_counters();
    cuda::wait_for(0, 0, 1);
    CHECK(cuda_on_cpu::counters().stream_waits == 1 && cuda_on_cpu::counters().synchronisations == 0);
    for (const char* const name : {"cudaEventCreateWithFlags", "cudaEventRecord", "cudaStreamWaitEvent"}) {
        cuda_on_cpu::fail_next(name, cudaErrorInvalidResourceHandle);
        CHECK(throws<cuda::Error>([]() { cuda::wait_for(0, 0, 1); }));
    }
    CHECK(cuda_on_cpu::counters().live_events == 0);
    cuda_on_cpu::fail_next("cudaFuncGetAttributes", cudaErrorNoKernelImageForDevice);
    CHECK(!cuda::obstacle(0).empty());
    cuda_on_cpu::clear_faults();
}

// --- streams and devices

std::uintptr_t address(cudaStream_t stream) { return reinterpret_cast<std::uintptr_t>(stream); }

int current_device() {
    int device = -1;
    CHECK(cudaGetDevice(&device) == cudaSuccess);
    return device;
}

std::size_t calls_of(const std::vector<cuda_on_cpu::StreamCall>& log, const char* name) {
    const auto is_it = [name](const auto& call) { return std::strcmp(call.name, name) == 0; };
    return static_cast<std::size_t>(std::count_if(log.begin(), log.end(), is_it));
}

// Two devices, and the current one as it was.
template <typename Function>
void with_two_devices(Function function) {
    cuda_on_cpu::set_device_count(2);
    for (const int current : {0, 1}) {
        CHECK(cudaSetDevice(current) == cudaSuccess);
        function();
        CHECK(current_device() == current);
    }
    CHECK(cudaSetDevice(0) == cudaSuccess);
    cuda_on_cpu::set_device_count(1);
}

// All that a call enqueues, allocates, copies, waits for and gives back is on the stream that it was given,
// with the device of the stream as the current one, whatever the caller's is.
void everything_on_the_stream() {
    const Batch batch = random_batch({217, 333}, 3, 1.0F, 150);
    const PostprocessOptions options =
        options_with(0, 0, 1.0);  // all kernels; more faces than one copy holds
    const cuda::HostFaces expected = expected_faces(batch, options);
    with_two_devices([&]() {
        for (const int device : {0, 1}) {
            const cudaStream_t own = cuda_on_cpu::create_stream(device);
            for (const cudaStream_t stream : {own, cudaStream_t{}}) {
                const int current = current_device();
                cuda_on_cpu::reset_counters();
                {
                    cuda::DeviceFaces faces = enqueue(batch, options, device, address(stream));
                    CHECK(current_device() == current);
                    CHECK(faces.device() == device && faces.stream() == address(stream));
                    CHECK(same(faces.to_host(), expected));
                    CHECK(current_device() == current);
                    const cuda::DeviceFaces moved = std::move(faces);
                }
                const cuda_on_cpu::Counters counters = cuda_on_cpu::counters();
                for (const cuda_on_cpu::StreamCall& call : counters.log) {
                    CHECK(call.stream == stream && call.device == device);
                }
                CHECK(calls_of(counters.log, "cudaLaunchKernelEx") == counters.launches);
                CHECK(counters.launches_of.size() == 7);
                CHECK(calls_of(counters.log, "cudaMemsetAsync") == 1);
                CHECK(calls_of(counters.log, "cudaMallocFromPoolAsync") == 2);
                CHECK(calls_of(counters.log, "cudaFreeAsync") == 2);
                CHECK(calls_of(counters.log, "cudaMemcpyAsync") == 2);
                CHECK(calls_of(counters.log, "cudaStreamSynchronize") == 2);
                CHECK(counters.synchronisations == 2 && counters.live_allocations == 0);
            }
            cuda_on_cpu::destroy_stream(own);
        }
    });
}

// A stream of another device is refused, not used, and nothing is lost.
void streams_of_another_device() {
    const Batch batch = random_batch({31, 33}, 1, 1.0F, 151);
    with_two_devices([&]() {
        const cudaStream_t stream = cuda_on_cpu::create_stream(1);
        CHECK(throws<cuda::Error>([&]() { static_cast<void>(enqueue(batch, {}, 0, address(stream))); }));
        cuda_on_cpu::destroy_stream(stream);
        CHECK(throws<cuda::Error>([&]() { static_cast<void>(enqueue(batch, {}, 1, address(stream))); }));
        CHECK(cuda_on_cpu::counters().live_allocations == 0);
    });
}

// The event is of the other stream, and what waits for it is the stream.
void waits_for_the_other() {
    with_two_devices([]() {
        for (const int device : {0, 1}) {
            const cudaStream_t stream = cuda_on_cpu::create_stream(device);
            const cudaStream_t other = cuda_on_cpu::create_stream(device);
            for (const auto& [waits, before] :
                 {std::pair(stream, other), {stream, cudaStream_t{}}, {cudaStream_t{}, other}}) {
                cuda_on_cpu::reset_counters();
                cuda::wait_for(device, address(waits), address(before));
                const cuda_on_cpu::Counters counters = cuda_on_cpu::counters();
                CHECK(counters.log.size() == 2 && counters.stream_waits == 1);
                CHECK(counters.live_events == 0 && counters.synchronisations == 0);
                if (counters.log.size() != 2) continue;
                const cuda_on_cpu::StreamCall& record = counters.log[0];
                const cuda_on_cpu::StreamCall& wait = counters.log[1];
                CHECK(std::strcmp(record.name, "cudaEventRecord") == 0 && record.stream == before);
                CHECK(std::strcmp(wait.name, "cudaStreamWaitEvent") == 0 && wait.stream == waits);
                CHECK(record.object == wait.object && record.device == device && wait.device == device);
            }
            cuda_on_cpu::destroy_stream(stream);
            cuda_on_cpu::destroy_stream(other);
        }
    });
}

}  // namespace

CHECK_MAIN(nothing_waits_unless_asked, copies, beyond_the_limits, failures, devices, everything_on_the_stream,
           streams_of_another_device, waits_for_the_other)
