// Binds the write face.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>

#include "canonical.hpp"
#include "content.hpp"
#include "image.hpp"
#include "module.hpp"
#include "module_arrays.hpp"
#include "view.hpp"
#include "writer.hpp"

namespace nb = nanobind;
using namespace nowgraph;

namespace {

using ColumnTuple = std::tuple<std::string, int, bool, bool, u32>;  // name, kind, joined, outcome, dim
using LinkTuple = std::tuple<std::string, u32, u32, bool>;          // name, child, parent, erases

GraphSpec spec_of(nb::list tables, const std::vector<LinkTuple>& links) {
  GraphSpec spec;
  for (nb::handle entry : tables) {
    TableSpec& table = spec.tables.emplace_back();
    table.name = nb::cast<std::string>(entry.attr("name"));
    table.key_parts_are_text = nb::cast<std::vector<bool>>(entry.attr("key_parts_are_text"));
    table.has_time = nb::cast<bool>(entry.attr("has_time"));
    table.known_time = static_cast<KnownTimeKind>(nb::cast<int>(entry.attr("known_time")));
    table.lateness_us = nb::cast<i64>(entry.attr("lateness_us"));
    table.future_us = nb::cast<i64>(entry.attr("future_us"));
    table.retention_age_us = nb::cast<i64>(entry.attr("retention_age_us"));
    table.retention_degree = nb::cast<u32>(entry.attr("retention_degree"));
    table.columns_on_disk = nb::cast<bool>(entry.attr("columns_on_disk"));
    for (auto& [name, kind, joined, outcome, dim] : nb::cast<std::vector<ColumnTuple>>(entry.attr("columns")))
      table.columns.push_back({name, static_cast<Kind>(kind), joined, outcome, dim});
  }
  for (const auto& [name, child, parent, erases] : links) spec.links.push_back({name, child, parent, erases});
  return spec;
}

// Arena and writer, and the order in which they go.
struct Graph {
  std::shared_ptr<Arena> arena;
  std::unique_ptr<Writer> writer;
  bool migrated = false;  // the image's graph had fewer tables, columns or links, or its columns elsewhere

  // Empty, or what `image` holds.
  Graph(nb::list tables, const std::vector<LinkTuple>& links, const std::string& fingerprint, i64 generation,
        u64 bytes, const std::optional<std::string>& path, const std::optional<std::string>& columns, u64 columns_bytes,
        const std::optional<std::string>& image)
      : arena(path ? std::make_shared<Arena>(*path, bytes, true) : std::make_shared<Arena>(bytes)) {
    if (columns) arena->add_columns(*columns, columns_bytes);
    const GraphSpec spec = spec_of(tables, links);
    nb::gil_scoped_release released;
    std::string state;
    if (image) state = restore_image(*arena, *image, fingerprint, generation);
    migrated = image && !fits_spec(*arena, spec);
    if (image && !migrated) {
      take_spec(*arena, spec);
    } else {
      if (migrated) arena->clear();
      format_graph(*arena, spec, fingerprint, generation);
    }
    writer = std::make_unique<Writer>(*arena, migrated ? "" : state);
    if (migrated) {
      const std::unique_ptr<Arena> old = Arena::of_image(*image);
      writer->take_over(Reader(*old), state);
    }
  }
};

// An image in the making keeps its arena.
struct Image {
  std::shared_ptr<Arena> arena;
  ImageWriter writer;

  Image(const Graph& graph, const std::string& path) : arena(graph.arena), writer(*graph.arena, path) {}
};

Applied apply(Graph& graph, nb::list events, std::optional<In<i64>> broker_time_us, const std::string& topic,
              std::optional<In<i32>> partition, std::optional<In<i64>> offset, bool backfill,
              const std::vector<std::tuple<std::string, i32, i64>>& positions) {
  const std::size_t count = events.size();
  const auto long_enough = [&](std::size_t size, const char* name) {
    if (size != count) throw nb::value_error((std::string(name) + " must be as long as events").c_str());
  };
  if (broker_time_us) long_enough(broker_time_us->size(), "broker_time_us");
  if (partition) long_enough(partition->size(), "partition");
  if (offset) long_enough(offset->size(), "offset");
  std::vector<std::string_view> views(count);
  for (std::size_t i = 0; i < count; ++i) {
    char* data;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(events[i].ptr(), &data, &size) != 0) throw nb::python_error();
    views[i] = {data, static_cast<std::size_t>(size)};
  }
  Applied result;
  nb::gil_scoped_release released;  // `events` keeps the bytes alive; the caller does not change the list meanwhile
  for (std::size_t i = 0; i < count; ++i) {
    LogPosition at;
    at.known = offset.has_value();
    at.topic = topic;
    if (broker_time_us) at.broker_time_us = broker_time_us->data()[i];
    if (partition) at.partition = partition->data()[i];
    if (offset) at.offset = offset->data()[i];
    graph.writer->apply(views[i], i, at, backfill, result);
  }
  for (const auto& [name, number, next] : positions) graph.writer->set_position(name, number, next);
  graph.writer->publish();
  return result;
}

Applied append(Graph& graph, u32 table, In<i64> keys, In<i64> event_time_us, std::optional<In<i64>> known_time_us,
               std::vector<In<i64>> parents) {
  const TableHeader& header = graph.writer->reader().table(table);
  if (header.key_kind != KeyKind::integer) throw nb::value_error("append needs a table with an integer key");
  if (parents.size() != header.link_count) throw nb::value_error("append needs the keys of every link");
  std::vector<const i64*> columns;
  for (const auto& parent : parents) {
    if (parent.size() != keys.size()) throw nb::value_error("every column must be as long as keys");
    columns.push_back(parent.data());
  }
  for (u32 l = 0; l < header.link_count; ++l)
    if (graph.writer->reader().table(graph.writer->reader().link(header.links[l]).parent).key_kind != KeyKind::integer)
      throw nb::value_error("append needs links to tables with integer keys");
  if (event_time_us.size() != keys.size() || (known_time_us && known_time_us->size() != keys.size()))
    throw nb::value_error("every column must be as long as keys");
  Applied result;
  nb::gil_scoped_release released;
  graph.writer->append(table, keys.data(), event_time_us.data(), known_time_us ? known_time_us->data() : nullptr,
                       columns, keys.size(), result);
  graph.writer->publish();
  return result;
}

nb::dict memory_of(const Graph& graph) {
  const Memory memory = graph.writer->memory();
  nb::dict out;
  out["arena_bytes"] = memory.arena_bytes;
  out["used_bytes"] = memory.used_bytes;
  out["idle_bytes"] = memory.idle_bytes;
  out["version_bytes"] = memory.version_bytes;
  out["versions"] = memory.versions;
  out["columns_bytes"] = memory.columns_bytes;
  out["adjacency_entries"] = memory.adjacency.entries;
  out["adjacency_bytes"] = memory.adjacency.live;
  out["late_entries"] = memory.adjacency.late;
  nb::list tables;
  for (const TableMemory& table : memory.tables) {
    nb::dict part;
    part["name"] = table.name;
    part["rows"] = table.rows;
    part["topology_bytes"] = table.topology_bytes;
    part["key_bytes"] = table.key_bytes;
    part["key_map_bytes"] = table.key_map_bytes;
    part["cell_bytes"] = table.cell_bytes;
    part["disk_bytes"] = table.disk_bytes;
    part["dictionary_bytes"] = table.dictionary_bytes;
    part["version_head_bytes"] = table.version_head_bytes;
    tables.append(part);
  }
  out["tables"] = tables;
  return out;
}

}  // namespace

void bind_graph(nb::module_& module) {
  nb::class_<Rejected>(module, "Rejected")
      .def_ro("index", &Rejected::index)
      .def_ro("reason", &Rejected::reason)
      .def_ro("detail", &Rejected::detail);
  nb::class_<Applied>(module, "Applied")
      .def_ro("applied", &Applied::applied)
      .def_ro("duplicate", &Applied::duplicate)
      .def_ro("erased", &Applied::erased)
      .def_ro("rejected", &Applied::rejected);
  nb::class_<Evicted>(module, "Evicted").def_ro("rows", &Evicted::rows).def_ro("entries", &Evicted::entries);
  nb::class_<Graph>(module, "Graph")
      .def(nb::init<nb::list, const std::vector<LinkTuple>&, const std::string&, i64, u64,
                    const std::optional<std::string>&, const std::optional<std::string>&, u64,
                    const std::optional<std::string>&>(),
           nb::arg("tables"), nb::arg("links"), nb::arg("fingerprint"), nb::arg("generation"), nb::arg("bytes"),
           nb::arg("path").none(), nb::arg("columns").none() = nb::none(), nb::arg("columns_bytes") = 0,
           nb::arg("image").none() = nb::none())
      .def("apply", &apply, nb::arg("events"), nb::arg("broker_time_us").none(), nb::arg("topic"),
           nb::arg("partition").none(), nb::arg("offset").none(), nb::arg("backfill"), nb::arg("positions"))
      .def("append", &append, nb::arg("table"), nb::arg("keys"), nb::arg("event_time_us"),
           nb::arg("known_time_us").none(), nb::arg("parents"))
      .def("evict", [](Graph& graph, i64 as_of_us) {
        nb::gil_scoped_release released;
        const Evicted evicted = graph.writer->evict(as_of_us);
        graph.writer->publish();
        return evicted;
      }, nb::arg("as_of_us"))
      .def("publish", [](Graph& graph) { graph.writer->publish(); })
      .def("memory", &memory_of)
      .def("canonical_hash", [](const Graph& graph) {
        nb::gil_scoped_release released;
        return canonical_hash(graph.writer->reader(), graph.writer->erasures());
      })
      .def("readers", [](const Graph& graph) { return graph.arena->slots_taken(); })
      .def_ro("arena", &Graph::arena)
      .def_ro("migrated", &Graph::migrated);
  nb::class_<Image>(module, "Image")
      .def(nb::init<const Graph&, const std::string&>(), nb::arg("graph"), nb::arg("path"))
      .def("copy", [](Image& image, u64 bytes_per_s) {
        nb::gil_scoped_release released;
        image.writer.copy(bytes_per_s);
      }, nb::arg("bytes_per_s"))
      .def("cancel", [](Image& image) { image.writer.cancel(); })
      .def("settle", [](Image& image, const Graph& graph) {
        nb::gil_scoped_release released;
        return image.writer.settle(graph.writer->save());
      }, nb::arg("graph"))
      .def("differing", [](const Image& image) {
        nb::gil_scoped_release released;
        return image.writer.differing();
      })
      .def("finish", [](Image& image) {
        nb::gil_scoped_release released;
        image.writer.finish();
      })
      .def_prop_ro("bytes", [](const Image& image) { return image.writer.bytes(); });
  module.def("verify_image", [](const std::string& path) {
    nb::gil_scoped_release released;
    verify_image(path);
  }, nb::arg("path"));
}
