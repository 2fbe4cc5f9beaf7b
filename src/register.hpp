// What each register_<op>.cpp adds to the module.
#pragma once

#include <pybind11/pybind11.h>

namespace retinaface::python {

void register_assignment(pybind11::module_& module);
void register_engine(pybind11::module_& module);
void register_matching(pybind11::module_& module);
void register_ops(pybind11::module_& module);
void register_postprocess(pybind11::module_& module);

}  // namespace retinaface::python
