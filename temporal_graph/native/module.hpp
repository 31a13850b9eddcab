// The parts of the Python module: each binds its own classes.
#pragma once

#include <nanobind/nanobind.h>

void bind_graph(nanobind::module_& module);
void bind_view(nanobind::module_& module);
void bind_sampler(nanobind::module_& module);
void bind_co_visits(nanobind::module_& module);
