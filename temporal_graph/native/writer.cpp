#include "writer.hpp"

#include <cmath>
#include <ctime>

namespace nowgraph {

namespace {

i64 clock_us() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<i64>(now.tv_sec) * 1'000'000 + now.tv_nsec / 1'000;
}

template <class T>
void publish_value(T& to, T value) {
  reinterpret_cast<std::atomic<T>*>(&to)->store(value, std::memory_order_release);
}

void fill_nulls(const TableHeader& table, const ColumnHeader* columns, char* cells) {
  for (u32 c = 0; c < table.column_count; ++c) {
    char* cell = cells + columns[c].offset;
    switch (columns[c].kind) {
      case Kind::numerical: store<double>(cell, std::nan("")); break;
      case Kind::timestamp: store<i64>(cell, NULL_TIMESTAMP_US); break;
      case Kind::coded: store<u32>(cell, CODE_NULL); break;
      case Kind::boolean: store<u8>(cell, BOOLEAN_NULL); break;
      case Kind::embedding:
        for (u32 i = 0; i < columns[c].dim; ++i) store<float>(cell + 4 * i, std::nanf(""));
        break;
    }
  }
}

}  // namespace

Writer::Writer(Arena& arena, std::string_view state)
    : arena_(arena),
      graph_(*arena.at<GraphHeader>(arena.header().graph_offset)),
      reader_(arena),
      catalog_(arena),
      decoder_(arena, catalog_),
      blocks_(arena),
      adjacency_(arena, blocks_),
      states_(graph_.table_count) {
  u64 largest_chunk = 0;
  for (u32 t = 0; t < graph_.table_count; ++t) {
    const TableHeader& table = table_of(t);
    largest_chunk = std::max<u64>(largest_chunk, u64{table.stride + 8} << CHUNK_ROWS_LOG2);
    std::vector<char>& blank = states_[t].blank;
    blank.assign(table.stride, 0);
    store<i64>(blank.data() + table.event_offset, ALWAYS_US);
    store<i64>(blank.data() + table.event_offset + 8, BARE_US);
    store<u32>(blank.data() + table.version_offset, NO_VERSION);
    for (u32 l = 0; l < table.link_count; ++l) store<u32>(blank.data() + table.parents_offset + 4 * l, NONE);
    std::vector<char>& blank_slot = states_[t].blank_slot;
    if (table.columns_on_disk) blank_slot.assign(table.slots.stride, 0);
    fill_nulls(table, reader_.columns(table), table.columns_on_disk ? blank_slot.data() : blank.data());
    columns_headroom_ = std::max<u64>(columns_headroom_, u64{table.slots.stride} << CHUNK_ROWS_LOG2);
  }
  columns_headroom_ += VERSION_CELLS_SLAB_BYTES;
  headroom_ = largest_chunk * (graph_.table_count + 1) + (u64{4} << 20) + arena_.bytes() / DENSE_ARENA_SHARE;
  if (!state.empty()) resume(state);
  for (u32 t = 0; t < graph_.table_count; ++t)
    if (TableHeader& table = table_of(t); table.columns_on_disk && table.slot_count == 0) take_slot(t, table);
  publish();
}

std::string Writer::save() const {
  StateOut out;
  erasures_.save(out);  // first: another layout's writer takes them over
  out.put_all(overwrites_);
  out.put(sequence_);
  out.put_all(offsets_);
  for (const u64 one : {string_next_, string_end_, u64{version_next_}, u64{version_end_}, version_bytes_, versions_,
                        version_cells_next_, version_cells_end_})
    out.put(one);
  for (const TableState& state : states_)
    for (const u64 one : {state.key_string_bytes, state.key_map_bytes, state.dense_bytes, state.dictionary_bytes})
      out.put(one);
  blocks_.save(out);
  adjacency_.save(out);
  return std::move(out.bytes);
}

void Writer::resume(std::string_view state) {
  StateIn in(state);
  erasures_.resume(in);
  overwrites_ = in.take_all<Overwrite>();
  overwrite(UINT64_MAX);  // nobody reads it yet
  sequence_ = in.take<u64>();
  offsets_ = in.take_all<i64>();
  for (u32 p = 0; p < offsets_.size(); ++p)
    partitions_[{std::string(reader_.string_at(graph_.partitions[p].topic)), graph_.partitions[p].partition}] = p;
  string_next_ = in.take<u64>();
  string_end_ = in.take<u64>();
  version_next_ = static_cast<u32>(in.take<u64>());
  version_end_ = static_cast<u32>(in.take<u64>());
  version_bytes_ = in.take<u64>();
  versions_ = in.take<u64>();
  version_cells_next_ = in.take<u64>();
  version_cells_end_ = in.take<u64>();
  for (TableState& table : states_)
    for (u64* one : {&table.key_string_bytes, &table.key_map_bytes, &table.dense_bytes, &table.dictionary_bytes})
      *one = in.take<u64>();
  blocks_.resume(in);
  adjacency_.resume(in);
  if (!in.done()) throw ImageRefused("the image's state is longer than this writer's");
}

// An event is applied whole or not at all: room for the worst it can ask for is made sure of before it begins.
void Writer::ensure_headroom(u64 event_bytes) const {
  if (arena_.free_bytes() < headroom_ + 16 * event_bytes)
    throw ArenaFull("arena of " + std::to_string(arena_.bytes()) + " bytes is full: " +
                    std::to_string(arena_.free_bytes()) + " bytes left");
  if (arena_.columns() != nullptr) arena_.ensure_columns(columns_headroom_ + 16 * event_bytes);
}

void Writer::apply(std::string_view bytes, u64 index, const LogPosition& at, bool backfill, Applied& result) {
  ensure_headroom(bytes.size());
  Refusal refusal;
  if (!decoder_.decode(bytes, change_, refusal) || !judge(table_of(change_.table), at, backfill, change_, refusal) ||
      !position_key(at, change_, refusal)) {
    result.rejected.push_back({index, refusal.reason, std::move(refusal.detail)});
    return;
  }
  enter(change_, result);
}

// Enters a judged change, unless it is of what is erased, and counts it.
void Writer::enter(RowChange& change, Applied& result) {
  if (change.operation == Operation::erase) {
    ++(erase(change) ? result.applied : result.duplicate);
    return;
  }
  if (!erasures_.empty() && is_erased(change))
    ++result.erased;
  else if (apply_change(change))
    ++result.applied;
  else {
    ++result.duplicate;
    return;
  }
  TableHeader& table = table_of(change.table);  // what is erased still says how late it is
  if (change.event_time_us > table.latest_event_us.load(std::memory_order_relaxed))
    table.latest_event_us.store(change.event_time_us, std::memory_order_release);
}

// Enters a checked change under the next sequence; false when the row has it already.
bool Writer::apply_change(const RowChange& change) {
  TableHeader& table = table_of(change.table);
  ++sequence_;
  const u32 row = find(table, change.key);
  if (row == NONE && change.operation == Operation::insert) {
    insert_row(change.table, table, change);
    return true;
  }
  const u32 target = row == NONE ? create_row(change.table, table, change.key) : row;
  if (add_version(change.table, table, target, change)) return true;
  --sequence_;
  return false;
}

// Fills in the known time and refuses what lies beyond the table's bounds, judged from the record alone.
bool Writer::judge(const TableHeader& table, const LogPosition& at, bool backfill, RowChange& change,
                   Refusal& refusal) const {
  if (change.operation == Operation::erase) return judge_erasure(at, change, refusal);
  // A row of a table without time is always visible; a change of it may still say when it happened.
  if (!table.has_time && change.operation == Operation::insert) change.has_event_time = false;
  if (!table.has_time && !change.has_event_time) change.has_known_time = false;
  if (!change.has_event_time) {
    if (table.has_time) {
      refusal = {"missing_event_time", "table \"" + std::string(table.name) + "\" has a time column, the event has no event time"};
      return false;
    }
    change.event_time_us = ALWAYS_US;
  }
  if (change.event_time_us == ALWAYS_US && change.has_event_time && table.has_time) {
    refusal = {"bad_event_time", "the event time is the reserved least value"};
    return false;
  }
  if (!change.has_known_time) {
    const bool from_broker = table.known_time == KnownTimeKind::broker && !backfill && at.broker_time_us != ALWAYS_US;
    change.known_time_us = from_broker && change.has_event_time ? at.broker_time_us : change.event_time_us;
  }
  if (change.known_time_us == BARE_US || (change.has_known_time && change.known_time_us == ALWAYS_US && table.has_time)) {
    refusal = {"bad_known_time", "the known time is a reserved value"};
    return false;
  }
  if (backfill || !change.has_event_time || change.event_time_us == ALWAYS_US) return true;
  const __int128 delay = static_cast<__int128>(change.known_time_us) - change.event_time_us;
  if (delay > table.lateness_us) {
    refusal = {"late", "known " + std::to_string(static_cast<i64>(delay)) + " us after it happened, the table's bound is " + std::to_string(table.lateness_us)};
    return false;
  }
  if (-delay > table.future_us) {
    refusal = {"future", "happens " + std::to_string(static_cast<i64>(-delay)) + " us after it was known, the table's bound is " + std::to_string(table.future_us)};
    return false;
  }
  return true;
}

// A table without a primary key: the source position is the key, so that a replay finds the same row.
bool Writer::position_key(const LogPosition& at, RowChange& change, Refusal& refusal) {
  if (change.key.present) return true;
  if (at.known) {
    position_key_.assign(at.topic).append("/").append(std::to_string(at.partition)).append("/").append(std::to_string(at.offset));
  } else if (!change.event_id.empty()) {
    position_key_.assign(change.event_id);
  } else {
    refusal = {"missing_key", "a row without a primary key needs a source position or an event id"};
    return false;
  }
  change.key.present = true;
  change.key.integer = false;
  change.key.bytes = position_key_;
  return true;
}

// ---- rows ----------------------------------------------------------------------------------------------------------

void Writer::grow_chunks(Chunks& chunks, bool on_disk) {
  if (chunks.chunk_count == chunks.directory_capacity) {
    // The old directory stays where it is: a reader may be in it, and it is small.
    const u64 grown = arena_.allocate(16ull * chunks.directory_capacity);
    std::memcpy(arena_.at<char>(grown), arena_.at<char>(chunks.directory.load(std::memory_order_relaxed)), 8ull * chunks.chunk_count);
    arena_.written(arena_.at<char>(grown), 8ull * chunks.chunk_count);
    chunks.directory_capacity *= 2;
    chunks.directory.store(grown, std::memory_order_release);
  }
  const u64 bytes = u64{chunks.stride} << chunks.log2_items;
  const u64 chunk = on_disk ? arena_.allocate_columns(bytes) : arena_.allocate(bytes);
  u64& place = arena_.at<u64>(chunks.directory.load(std::memory_order_relaxed))[chunks.chunk_count];
  publish_value(place, chunk);
  arena_.written(&place);
  ++chunks.chunk_count;
}

// Chunks for a row where its number asks for them, unless there can be no such row.
void Writer::room_for_row(TableHeader& table, u32 row) {
  if (row + u64{1} >= SLOT_ERASED) throw ArenaFull("table " + std::string(table.name) + " holds 2^32 rows at most");
  if ((row >> CHUNK_ROWS_LOG2) != table.rows.chunk_count) return;
  grow_chunks(table.keys);
  grow_chunks(table.rows);
}

void Writer::widen(TableHeader& table, Shape shape) {
  const Shape now = table.shape.load(std::memory_order_relaxed);
  if (now == shape || now == Shape::mixed) return;
  table.shape.store(now == Shape::empty ? shape : Shape::mixed, std::memory_order_release);
}

u32 Writer::create_row(u32 table_index, TableHeader& table, const KeyValue& key) {
  TableState& state = states_[table_index];
  arena_.written(next_record(table, table_index), table.stride);
  const u32 row = table.row_count.load(std::memory_order_relaxed);
  char* const key_at = table.keys.item(arena_, row);
  if (key.integer) {
    store<i64>(key_at, key.number);
    arena_.written(key_at);
    table.row_count.store(row + 1, std::memory_order_release);
    enter_key(table_index, table, key.number, row);
  } else {
    store<u64>(key_at, keep_string(key.bytes, state.key_string_bytes));
    arena_.written(key_at);
    table.row_count.store(row + 1, std::memory_order_release);
    map_insert(table.map, hash_bytes(key.bytes.data(), key.bytes.size()), row, state.key_map_bytes);
  }
  if (!erasures_.empty())
    if (ErasedKey* erased = erasures_.find(table.name, key); erased != nullptr) erased->row = row;
  return row;
}

u32 Writer::find_or_create(u32 table_index, const KeyValue& key) {
  TableHeader& table = table_of(table_index);
  const u32 row = find(table, key);
  if (row != NONE) return row;
  widen(table, Shape::bare);
  return create_row(table_index, table, key);
}

void Writer::insert_row(u32 table_index, TableHeader& table, const RowChange& change) {
  const u32 row = create_row(table_index, table, change.key);
  char* record = table.rows.item(arena_, row);
  widen(table, visible_time_us(change.event_time_us, change.known_time_us) == ALWAYS_US ? Shape::timeless : Shape::mixed);
  store<i64>(record + table.event_offset, change.event_time_us);
  store<i64>(record + table.event_offset + 8, change.known_time_us);
  char* cells = new_cells(table_index, table, change, record);
  for (const CellValue& cell : change.cells) {
    if (cell.is_null) continue;
    if (cell.index < table.column_count)
      store_cell(table_index, table, cell, cells + reader_.columns(table)[cell.index].offset);
    else
      store_cell(table_index, table, cell, record + table.parents_offset + 4 * (cell.index - table.column_count));
  }
  if (cells != record) cells_written(cells, table.slots.stride);
  arena_.written(record, table.stride);
  link_row(table, row, record);
}

void Writer::link_row(const TableHeader& table, u32 row, const char* record) {
  const u32 time = tick_of(Reader::inline_visible_us(table, record)) << 1;
  for (u32 l = 0; l < table.link_count; ++l) {
    const u32 parent = Reader::inline_parent(table, record, l);
    if (parent != NONE) put_entry(graph_.links[table.links[l]], parent, {row, time});
  }
}

// Writes a cell's payload and returns its size; `to` has room for it.
u32 Writer::store_cell(u32 table_index, TableHeader& table, const CellValue& cell, char* to) {
  if (cell.index >= table.column_count) {
    const LinkHeader& link = graph_.links[table.links[cell.index - table.column_count]];
    store<u32>(to, find_or_create(link.parent, cell.key));
    return 4;
  }
  ColumnHeader& column = arena_.at<ColumnHeader>(table.columns)[cell.index];
  switch (column.kind) {
    case Kind::numerical: store<double>(to, cell.number); return 8;
    case Kind::timestamp: store<i64>(to, cell.integer); return 8;
    case Kind::coded: store<u32>(to, code_of(column, cell.text, states_[table_index].dictionary_bytes)); return 4;
    case Kind::boolean: store<u8>(to, cell.boolean ? 1 : 0); return 1;
    case Kind::embedding: std::memcpy(to, cell.vector, 4ull * column.dim); return 4 * column.dim;
  }
  return 0;
}

// ---- publishing ----------------------------------------------------------------------------------------------------

void Writer::set_position(std::string_view topic, i32 partition, i64 next_offset) {
  const auto [found, fresh] = partitions_.try_emplace({std::string(topic), partition}, static_cast<u32>(offsets_.size()));
  if (fresh) {
    if (offsets_.size() == MAX_PARTITIONS) throw ArenaFull("more than " + std::to_string(MAX_PARTITIONS) + " partitions");
    u64 unused = 0;
    graph_.partitions[found->second] = {keep_string(topic, unused), partition, 0};
    offsets_.push_back(next_offset);
  }
  offsets_[found->second] = next_offset;
}

void Writer::publish() {
  const u64 turn = graph_.turn.load(std::memory_order_relaxed) + 1;
  PublishedState& state = graph_.published[turn & 1];
  i64 watermark = ALWAYS_US;
  publish_value(state.sequence, sequence_);
  for (u32 t = 0; t < graph_.table_count; ++t) {
    const TableHeader& table = table_of(t);
    publish_value(state.row_limit[t], table.row_count.load(std::memory_order_relaxed));
    watermark = std::max(watermark, table.latest_event_us.load(std::memory_order_relaxed));
  }
  for (u32 p = 0; p < offsets_.size(); ++p) publish_value(state.offsets[p], offsets_[p]);
  publish_value(state.partition_count, static_cast<u32>(offsets_.size()));
  publish_value(state.watermark_us, watermark);
  graph_.writer_pulse_us.store(static_cast<u64>(clock_us()), std::memory_order_relaxed);
  graph_.turn.store(turn, std::memory_order_seq_cst);
  reclaim(++publishes_ % 64 == 0);
  // Counts and times of all kinds change with every batch.
  arena_.written(&graph_, sizeof graph_);
  for (u32 t = 0; t < graph_.table_count; ++t) arena_.written(&table_of(t), sizeof(TableHeader));
}

void Writer::reclaim(bool check_dead) {
  if (blocks_.waiting() || !overwrites_.empty()) overwrite(blocks_.reclaim(check_dead || !overwrites_.empty()));
}

}  // namespace nowgraph
