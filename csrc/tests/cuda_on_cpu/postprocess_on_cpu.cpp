// The kernels and their host code, as plain C++.
#include "cuda/postprocess.cu"
