// What a Python GraphView stands on: the arena, names, and a reader of its own for calls that are not sampling.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "canonical.hpp"
#include "decode.hpp"
#include "reader.hpp"

namespace nowgraph {

struct Position {
  i64 generation;
  u64 sequence;
  i64 watermark_us;
  std::vector<std::string> topics;
  std::vector<i32> partitions;
  std::vector<i64> offsets;
};

// Every change that set a column to something.
struct Outcomes {
  std::vector<i64> row;
  std::vector<i64> event_time_us;  // of the row
  std::vector<double> value;
  std::vector<i64> visible_time_us;  // of the change
};

class View {
 public:
  explicit View(std::shared_ptr<Arena> arena) : arena(std::move(arena)), catalog(*this->arena), reader(*this->arena) {}

  // Sequence and offsets of one published state.
  Position position() {
    const GraphHeader& graph = reader.graph();
    for (;;) {
      const u64 turn = graph.turn.load(std::memory_order_acquire);
      const PublishedState& state = graph.published[turn & 1];
      Position at{arena->header().generation, take(state.sequence), take(state.watermark_us), {}, {}, {}};
      const u32 count = std::min(take(state.partition_count), MAX_PARTITIONS);
      for (u32 i = 0; i < count; ++i) at.offsets.push_back(take(state.offsets[i]));
      if (graph.turn.load(std::memory_order_seq_cst) != turn) continue;
      for (u32 i = 0; i < count; ++i) {  // names are written once, before the count that shows them
        at.topics.emplace_back(reader.string_at(graph.partitions[i].topic));
        at.partitions.push_back(graph.partitions[i].partition);
      }
      return at;
    }
  }

  Outcomes outcomes(u32 table_index, u32 column_index);

  std::shared_ptr<Arena> arena;
  Catalog catalog;
  Reader reader;

 private:
  template <class T>
  static T take(const T& value) {
    return reinterpret_cast<const std::atomic<T>*>(&value)->load(std::memory_order_acquire);
  }
};

// Pins for the length of a scope; those of one reader may overlap.
class Pinned {
 public:
  explicit Pinned(Reader& reader) : reader_(reader), snapshot(reader.hold()) {}
  ~Pinned() { reader_.let_go(); }
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;

 private:
  Reader& reader_;

 public:
  const Snapshot snapshot;
};

}  // namespace nowgraph
