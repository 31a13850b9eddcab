// Binds the sampler: arrays in, a Sample out whose columns numpy sees without a copy.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "module.hpp"
#include "module_arrays.hpp"
#include "module_busy.hpp"
#include "sampler.hpp"
#include "sampler_adjacency.hpp"
#include "view.hpp"

namespace nb = nanobind;
using namespace nowgraph;

namespace {

// A sample in Python's hands; when Python lets go of it and of every array, its memory serves the next request.
struct HeldSample {
  std::unique_ptr<Sample> sample;
  std::shared_ptr<SamplePool> pool;
  std::shared_ptr<Arena> arena;

  HeldSample(std::unique_ptr<Sample> sample, std::shared_ptr<SamplePool> pool, std::shared_ptr<Arena> arena)
      : sample(std::move(sample)), pool(std::move(pool)), arena(std::move(arena)) {}
  HeldSample(HeldSample&&) = default;
  ~HeldSample() {
    if (sample != nullptr) pool->give_back(std::move(sample));
  }
};

struct HeldSampler {
  std::shared_ptr<Arena> arena;
  Sampler sampler;
  std::atomic_flag busy;

  template <class... Args>
  HeldSampler(std::shared_ptr<Arena> arena, Args... args) : arena(std::move(arena)), sampler(*this->arena, args...) {}
};

// Letting go of Python's lock and taking it again costs more than one walk, and when another thread has taken it in
// between, far more; a batch is long enough to be worth it.
constexpr std::size_t RELEASE_FROM_SEEDS = 2;

template <class Body>
HeldSample held(HeldSampler& self, std::size_t seeds, std::optional<u64> request, Body body) {
  const Busy busy(self.busy, "a sampler");
  const u64 number = request ? *request : self.sampler.next_request();
  std::unique_ptr<Sample> sample;
  if (seeds >= RELEASE_FROM_SEEDS) {
    nb::gil_scoped_release release;
    sample = body(number);
  } else {
    sample = body(number);
  }
  return {std::move(sample), self.sampler.pool(), self.arena};
}

HeldSample sample_rows(HeldSampler& self, u32 table, In<i64> rows, In<i64> cutoffs, bool as_of,
                       std::optional<u64> request) {
  if (rows.size() != cutoffs.size()) throw nb::value_error("as many cut-offs as seeds are needed");
  if (table >= self.sampler.reader().graph().table_count) throw nb::index_error("no such table");
  return held(self, rows.size(), request, [&](u64 number) {
    return self.sampler.sample_rows(table, rows.data(), cutoffs.data(), rows.size(), as_of, number);
  });
}

// Of an object that is bytes; lives as long as it.
std::string_view view_of(nb::handle bytes) {
  return {PyBytes_AS_STRING(bytes.ptr()), static_cast<std::size_t>(PyBytes_GET_SIZE(bytes.ptr()))};
}

HeldSample sample_events(HeldSampler& self, nb::sequence events, In<i64> cutoffs, std::optional<u64> request) {
  std::vector<nb::object> kept;  // an iterator may hand out the only reference
  std::vector<std::string_view> bytes;
  for (nb::handle event : events) {
    kept.push_back(nb::borrow(event));
    if (!nb::isinstance<nb::bytes>(event)) throw nb::value_error("an event is the bytes of a RowEvent");
    bytes.push_back(view_of(event));
  }
  if (bytes.size() != cutoffs.size()) throw nb::value_error("as many cut-offs as seeds are needed");
  return held(self, bytes.size(), request,
              [&](u64 number) { return self.sampler.sample_events(bytes, cutoffs.data(), number); });
}

HeldSample sample_sessions(HeldSampler& self, u32 table, In<i64> rows, nb::sequence sessions, u32 edge_type,
                           In<i64> cutoffs, In<i64> asked, std::optional<u64> request) {
  const Reader& reader = self.sampler.reader();
  if (edge_type % 2 == 0 || edge_type / 2 >= reader.graph().link_count || reader.link(edge_type / 2).parent != table)
    throw nb::value_error("a session's link leads from the seeds' table to its children");
  std::vector<nb::object> kept;  // iterators may hand out the only references
  SessionEvents given;
  for (nb::handle session : sessions) {
    const std::string place = " of session " + std::to_string(given.offset.size() - 1);
    if (!nb::isinstance<nb::sequence>(session))
      throw nb::value_error(("a session is a sequence of events, not so the one" + place).c_str());
    kept.push_back(nb::borrow(session));
    for (nb::handle event : session) {
      kept.push_back(nb::borrow(event));
      if (!nb::isinstance<nb::bytes>(event))
        throw nb::value_error(("an event is the bytes of a RowEvent, not so event " +
                               std::to_string(given.events.size() - given.offset.back()) + place).c_str());
      given.events.push_back(view_of(event));
    }
    given.offset.push_back(given.events.size());
  }
  if (rows.size() != cutoffs.size() || rows.size() != asked.size() || rows.size() + 1 != given.offset.size())
    throw nb::value_error("as many cut-offs, times and sessions as seeds are needed");
  return held(self, rows.size(), request, [&](u64 number) {
    return self.sampler.sample_sessions(table, rows.data(), given, edge_type, cutoffs.data(), asked.data(), rows.size(),
                                        number);
  });
}

template <class T>
using Plane = nb::ndarray<const T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

void make_sampler(HeldSampler* self, const View& view, u32 node_limit, Plane<i32> numbers, Plane<u8> strategies,
                  Plane<double> lives, u64 seed) {
  const std::size_t hops = numbers.shape(0), edge_types = numbers.shape(1);
  if (edge_types != 2 * std::size_t{view.reader.graph().link_count} || strategies.shape(0) != hops ||
      lives.shape(0) != hops || strategies.shape(1) != edge_types || lives.shape(1) != edge_types)
    throw nb::value_error("a plan is [hops, edge types of the schema], three times");
  if (node_limit == 0 || node_limit > NODE_LIMIT_MAX || hops > 8) throw nb::value_error("a plan beyond the limits");
  new (self) HeldSampler(view.arena, static_cast<u32>(hops), node_limit, numbers.data(), strategies.data(),
                         lives.data(), seed);
}

// The arrays below own the sample they look into. They are writable only so that torch takes them without a warning.
template <class T>
nb::ndarray<nb::numpy, T, nb::ndim<1>> array(nb::handle owner, Column<T>& column) {
  return nb::ndarray<nb::numpy, T, nb::ndim<1>>(column.data(), {column.size()}, owner);
}

template <class T, Column<T> Sample::*column>
auto column_of(nb::handle_t<HeldSample> self) {
  return array<T>(self, (*nb::inst_ptr<HeldSample>(self)->sample).*column);
}

const TableHeader& table_of(const HeldSample& held, u32 table) {
  return *held.arena->at<TableHeader>(Reader::graph_of(*held.arena)->tables[table]);
}

// The nodes of a table, with their cells. Those of a table without columns are found when somebody asks.
GatheredTable& gathered_of(const HeldSample& held, u32 table) {
  Sample& sample = *held.sample;
  if (table >= sample.gathered.size()) throw nb::index_error("no such table");
  GatheredTable& gathered = sample.gathered[table];
  if (table_of(held, table).column_count == 0 && gathered.node.size() == 0)
    for (std::size_t node = 0; node < sample.table.size(); ++node)
      if (sample.table[node] == table) gathered.node.push(static_cast<i32>(node));
  return gathered;
}

template <class T, Column<T> GatheredTable::*column, Kind kind>
auto cells_of(nb::handle_t<HeldSample> self, u32 table) {
  const HeldSample& held = *nb::inst_ptr<HeldSample>(self);
  GatheredTable& gathered = gathered_of(held, table);
  const std::size_t width = table_of(held, table).kind_counts[static_cast<u32>(kind)];
  return nb::ndarray<nb::numpy, T, nb::ndim<2>>((gathered.*column).data(), {gathered.node.size(), width}, self);
}

auto nodes_of(nb::handle_t<HeldSample> self, u32 table) {
  return array<i32>(self, gathered_of(*nb::inst_ptr<HeldSample>(self), table).node);
}

// With the names of the partitions as they are now: they are only ever added.
Position position_of(const HeldSample& held) {
  const Sample& sample = *held.sample;
  const GraphHeader& graph = *Reader::graph_of(*held.arena);
  Position at{sample.generation, sample.sequence, sample.watermark_us, {}, {}, {}};
  for (std::size_t i = 0; i < sample.offsets.size(); ++i) {
    const char* topic = held.arena->at<char>(graph.partitions[i].topic);
    at.topics.emplace_back(topic + 4, load<u32>(topic));
    at.partitions.push_back(graph.partitions[i].partition);
    at.offsets.push_back(sample.offsets[i]);
  }
  return at;
}

template <class T>
void check_equal_lengths(const In<T>& a, std::size_t b) {
  if (a.size() != b) throw nb::value_error("arrays of unequal length");
}

}  // namespace

void bind_sampler(nb::module_& module) {
  nb::class_<HeldSample>(module, "Sample")
      .def_prop_ro("table", &column_of<u8, &Sample::table>)
      .def_prop_ro("row", &column_of<i64, &Sample::row>)
      .def_prop_ro("hop", &column_of<u8, &Sample::hop>)
      .def_prop_ro("parent", &column_of<i32, &Sample::parent>)
      .def_prop_ro("link", &column_of<i16, &Sample::link>)
      .def_prop_ro("event_time_us", &column_of<i64, &Sample::event_time_us>)
      .def_prop_ro("known_time_us", &column_of<i64, &Sample::known_time_us>)
      .def_prop_ro("version", &column_of<i32, &Sample::version>)
      .def_prop_ro("edge_source", &column_of<i32, &Sample::edge_source>)
      .def_prop_ro("edge_target", &column_of<i32, &Sample::edge_target>)
      .def_prop_ro("edge_link", &column_of<i16, &Sample::edge_link>)
      .def_prop_ro("seed_offset", &column_of<i64, &Sample::seed_offset>)
      .def_prop_ro("edge_offset", &column_of<i64, &Sample::edge_offset>)
      .def_prop_ro("cutoff_time_us", &column_of<i64, &Sample::cutoff_time_us>)
      .def_prop_ro("position", &position_of)
      .def_prop_ro("unseen", [](const HeldSample& self) { return self.sample->unseen; })
      .def("gathered_node", &nodes_of, nb::arg("table"))
      .def("gathered_numerical", &cells_of<double, &GatheredTable::numerical, Kind::numerical>, nb::arg("table"))
      .def("gathered_timestamp", &cells_of<i64, &GatheredTable::timestamp, Kind::timestamp>, nb::arg("table"))
      .def("gathered_coded", &cells_of<i32, &GatheredTable::coded, Kind::coded>, nb::arg("table"))
      .def("gathered_embedding", &cells_of<float, &GatheredTable::embedding, Kind::embedding>, nb::arg("table"))
      .def("gathered_boolean", &cells_of<u8, &GatheredTable::boolean, Kind::boolean>, nb::arg("table"));
  nb::class_<HeldSampler>(module, "Sampler")
      .def("__init__", &make_sampler, nb::arg("view"), nb::arg("node_limit"), nb::arg("num_neighbors"),
           nb::arg("strategy"), nb::arg("half_life"), nb::arg("seed"))
      .def("sample_rows", &sample_rows, nb::arg("table"), nb::arg("rows"), nb::arg("cutoff_time_us"), nb::arg("as_of"),
           nb::arg("request").none())
      .def("sample_sessions", &sample_sessions, nb::arg("table"), nb::arg("rows"), nb::arg("sessions"),
           nb::arg("edge_type"), nb::arg("cutoff_time_us"), nb::arg("asked_time_us"), nb::arg("request").none())
      .def("sample_events", &sample_events, nb::arg("events"), nb::arg("cutoff_time_us"), nb::arg("request").none());
  // Not for use: what `make bench` measures the lists alone with.
  nb::class_<AdjacencyBench>(module, "AdjacencyBench")
      .def(nb::init<u64, u64>(), nb::arg("nodes"), nb::arg("arena_bytes"))
      .def("ingest", [](AdjacencyBench& self, In<u32> source, In<u32> target, In<u32> tick) {
        check_equal_lengths(source, tick.size());
        check_equal_lengths(target, tick.size());
        nb::gil_scoped_release release;
        self.ingest(source.data(), target.data(), tick.data(), tick.size());
      }, nb::arg("source"), nb::arg("target"), nb::arg("tick"))
      .def("sample", [](AdjacencyBench& self, In<u32> seeds, In<u32> cutoffs, const std::vector<u32>& fan_outs, u32 strategy) {
        check_equal_lengths(seeds, cutoffs.size());
        nb::gil_scoped_release release;
        return self.sample(seeds.data(), cutoffs.data(), seeds.size(), fan_outs, strategy);
      }, nb::arg("seeds"), nb::arg("cutoffs"), nb::arg("num_neighbors"), nb::arg("strategy"))
      .def_prop_ro("entries", &AdjacencyBench::entries)
      .def_prop_ro("live_bytes", &AdjacencyBench::live_bytes);
}
