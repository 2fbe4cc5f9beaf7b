// Between the two parts of the runtime: functions of the host, and the execution of kernels.
#pragma once

#include "cuda_on_cpu.hpp"

namespace cuda_on_cpu {

// Runs all threads of a grid, or says why it cannot be launched.
cudaError_t run_grid(const cudaLaunchConfig_t& config, void (*body)(const void*), const void* call);

}  // namespace cuda_on_cpu
