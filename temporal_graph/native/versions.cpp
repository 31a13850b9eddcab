#include "versions.hpp"

#include <algorithm>

#include "sampler_gather.hpp"

namespace nowgraph {

namespace {

class StateWriter {
 public:
  StateWriter(const Reader& reader, const Snapshot& snapshot, u32 table_index, RowStates& out)
      : reader_(reader),
        snapshot_(snapshot),
        gather_(reader),
        table_index_(table_index),
        table_(reader.table(table_index)),
        merged_(table_.column_count + table_.link_count),
        out_(out) {}

  void add(u32 row) {
    const char* record = reader_.row(table_, row);
    const u32 head = Reader::version_head(table_, record).load(std::memory_order_acquire);
    if (head != NO_VERSION)
      add_changed(row, record);
    else if (!Reader::inline_bare(table_, record))
      add_plain(row, record);
  }

 private:
  static constexpr i64 NOT_YET = -1;
  struct Merged {
    const char* payload;  // nullptr: null
    i64 rank;             // of the version that said so
  };
  struct Change {
    i64 visible_us;
    u32 rank;  // in the order of the fold
  };

  // An insert and nothing since.
  void add_plain(u32 row, const char* record) {
    put_times(row, Reader::inline_event_us(table_, record), Reader::inline_visible_us(table_, record), false);
    gather_.inline_cells(out_.cells, table_index_, record);
    i64* parent = out_.parents.extend(table_.link_count);
    for (u32 link = 0; link < table_.link_count; ++link)
      parent[link] = row_or_none(Reader::inline_parent(table_, record, link));
  }

  // The fold is by rank, the states are by visible time: a version that becomes visible after one of a higher rank sets
  // only what no higher one has set.
  void add_changed(u32 row, const char* record) {
    reader_.versions(table_, record, snapshot_.sequence, versions_);
    changes_.clear();
    for (u32 rank = 0; rank < versions_.size(); ++rank)
      changes_.push_back({visible_time_us(versions_[rank].event_time_us, versions_[rank].known_time_us), rank});
    std::sort(changes_.begin(), changes_.end(), [](const Change& a, const Change& b) {
      return a.visible_us != b.visible_us ? a.visible_us < b.visible_us : a.rank < b.rank;
    });
    std::fill(merged_.begin(), merged_.end(), Merged{nullptr, NOT_YET});
    u32 first = NONE, last = 0;  // ranks visible so far
    for (std::size_t i = 0; i < changes_.size();) {
      const i64 time = changes_[i].visible_us;
      for (; i < changes_.size() && changes_[i].visible_us == time; ++i) {
        first = std::min(first, changes_[i].rank);
        last = std::max(last, changes_[i].rank);
        fold(record, changes_[i].rank);
      }
      const bool deleted = versions_[last].operation == Operation::remove;
      put_state(row, versions_[first].event_time_us, time, deleted);
      if (i < changes_.size()) out_.valid_to_us[out_.valid_to_us.size() - 1] = changes_[i].visible_us;
    }
  }

  void fold(const char* record, u32 rank) {
    const Reader::VersionKey& key = versions_[rank];
    if (key.operation == Operation::remove) return;
    if (key.unit == NO_VERSION || key.operation == Operation::insert) {
      for (u32 index = 0; index < merged_.size(); ++index)
        set(index, rank, key.unit == NO_VERSION ? reader_.inline_cell(table_, record, index) : nullptr);
      if (key.unit == NO_VERSION) return;
    }
    reader_.each_cell(table_, *reader_.version(key.unit), [&](u32 index, const char* payload) {
      set(index, rank, payload);
    });
  }

  void set(u32 index, u32 rank, const char* payload) {
    if (merged_[index].rank <= static_cast<i64>(rank)) merged_[index] = {payload, rank};
  }

  void put_state(u32 row, i64 event_time_us, i64 visible_us, bool deleted) {
    put_times(row, event_time_us, visible_us, deleted);
    gather_.null_cells(out_.cells, table_index_);
    i64* parent = out_.parents.extend(table_.link_count);
    std::fill_n(parent, table_.link_count, i64{-1});
    if (deleted) return;  // nothing of a deleted row is shown
    for (u32 index = 0; index < table_.column_count; ++index)
      gather_.set_cell(out_.cells, table_index_, index, merged_[index].payload);
    for (u32 link = 0; link < table_.link_count; ++link)
      if (const char* payload = merged_[table_.column_count + link].payload; payload != nullptr)
        parent[link] = row_or_none(load<u32>(payload));
  }

  void put_times(u32 row, i64 event_time_us, i64 visible_us, bool deleted) {
    out_.row.push(row);
    out_.event_time_us.push(event_time_us);
    out_.valid_from_us.push(visible_us);
    out_.valid_to_us.push(INT64_MAX);
    out_.deleted.push(deleted);
  }

  static i64 row_or_none(u32 row) { return row == NONE ? -1 : static_cast<i64>(row); }

  const Reader& reader_;
  const Snapshot& snapshot_;
  Gather gather_;
  u32 table_index_;
  const TableHeader& table_;
  std::vector<Merged> merged_;  // columns, then links
  std::vector<Reader::VersionKey> versions_;
  std::vector<Change> changes_;
  RowStates& out_;
};

}  // namespace

void RowArrivals::add(const Reader& reader, const Snapshot& snapshot, const TableHeader& table, u32 index) {
  const char* record = reader.row(table, index);
  const u32 head = Reader::version_head(table, record).load(std::memory_order_acquire);
  const bool plain = head == NO_VERSION;
  i64 event = Reader::inline_event_us(table, record), known = Reader::inline_known_us(table, record);
  bool is_bare = Reader::inline_bare(table, record);
  if (!plain) {
    reader.versions(table, record, head, snapshot.sequence, versions_);
    is_bare = versions_.empty();
    if (!is_bare) {
      event = versions_.front().event_time_us;
      known = versions_.front().known_time_us;
    }
  }
  row.push(index);
  bare.push(is_bare);
  event_time_us.push(is_bare ? ALWAYS_US : event);
  visible_time_us.push(is_bare ? ALWAYS_US : nowgraph::visible_time_us(event, known));
  i64* parent = parents.extend(table.link_count);
  for (u32 link = 0; link < table.link_count; ++link) {
    parent[link] = -1;
    if (is_bare) continue;
    const char* payload = plain ? reader.inline_cell(table, record, table.column_count + link)
                                : reader.first_cell(snapshot, table, record, head, table.column_count + link);
    if (payload != nullptr) parent[link] = load<u32>(payload);
  }
}

RowStates row_states(const Reader& reader, const Snapshot& snapshot, u32 table_index) {
  RowStates out;
  StateWriter writer(reader, snapshot, table_index, out);
  for (u32 row = 0; row < snapshot.row_limit[table_index]; ++row) {
    reader.ask_cells_from(reader.table(table_index), row);
    writer.add(row);
  }
  return out;
}

}  // namespace nowgraph
