#include "changes.hpp"

#include <algorithm>

namespace nowgraph {

namespace {

constexpr u32 LATE_CHANGES_TOLD = 1u << 16;  // with as many changes between two looks the late ones' count may be round

u32 head_unit(const TableHeader& table, const char* record) {
  const u32 head = Reader::version_head(table, record).load(std::memory_order_acquire);
  return is_dropped(head) ? NO_VERSION : version_unit(head);
}

// What one look finds in the chains of a table's rows.
class Look {
 public:
  Look(const Reader& reader, const Snapshot& snapshot, const TableHeader& table, const ChangeMark& since, RowChanges& out)
      : reader_(reader), snapshot_(snapshot), table_(table), since_(since), out_(out), beyond_(since.unit) {}

  // Looks at a row: at its newest versions as long as they are new, or at all of them.
  void at(u32 row, bool whole) {
    const char* record = reader_.row(table_, row);
    const u32 head = head_unit(table_, record);
    if (head == NO_VERSION || (!whole && head < since_.unit)) return;
    beyond_ = std::max(beyond_, head + 1);
    i64 first_us = is_rewritten(head) ? INT64_MIN : INT64_MAX;
    for (u32 unit = head; unit != NO_VERSION;) {
      const VersionRecord& version = *reader_.version(unit);
      const bool is_new = version.sequence > since_.sequence;
      if (!is_new && !whole) break;
      if (version.sequence > snapshot_.sequence)
        unpublished_ = true;
      else if (is_new)
        first_us = std::min(first_us, visible_time_us(version.event_time_us, version.known_time_us));
      unit = version.next.load(std::memory_order_acquire);
    }
    if (first_us != INT64_MAX) tell(row, record, first_us);
  }

  bool unpublished() const { return unpublished_; }
  u32 beyond() const { return beyond_; }  // every unit that was seen in a head

 private:
  // An erasure wrote the versions anew that it left, under a mark.
  bool is_rewritten(u32 head) const {
    if (head < since_.unit || reader_.version(head)->sequence > since_.sequence) return false;
    u8 oldest = 0;
    for (u32 unit = head; unit != NO_VERSION;) {
      const VersionRecord& version = *reader_.version(unit);
      oldest = version.operation;
      unit = version.next.load(std::memory_order_acquire);
    }
    return oldest == static_cast<u8>(Operation::erase);
  }

  void tell(u32 row, const char* record, i64 first_us) {
    reader_.versions(table_, record, snapshot_.sequence, versions_);
    times_.clear();
    for (const Reader::VersionKey& version : versions_)
      if (const i64 time = visible_time_us(version.event_time_us, version.known_time_us); time >= first_us)
        times_.push_back(time);
    std::sort(times_.begin(), times_.end());
    times_.erase(std::unique(times_.begin(), times_.end()), times_.end());
    for (const i64 time : times_) {
      out_.row.push(row);
      out_.visible_time_us.push(time);
    }
  }

  const Reader& reader_;
  const Snapshot& snapshot_;
  const TableHeader& table_;
  const ChangeMark& since_;
  RowChanges& out_;
  u32 beyond_;
  bool unpublished_ = false;
  std::vector<Reader::VersionKey> versions_;
  std::vector<i64> times_;
};

}  // namespace

ChangeMark first_mark(const TableHeader& table) {
  // One change less than there were, so that the first look is at the heads.
  const u32 changes = table.changes.load(std::memory_order_acquire);
  return {changes - 1, table.late_changes.load(std::memory_order_relaxed), 0, 0};
}

bool has_changed(const TableHeader& table, const ChangeMark& since) {
  return table.changes.load(std::memory_order_acquire) != since.changes;
}

void changed_rows(const Reader& reader, const Snapshot& snapshot, const TableHeader& table, u32 row_limit,
                  RowChanges& found) {
  const ChangeMark since = found.mark;
  // After the snapshot was taken: what it shows has been counted. What else has is of the batch that is being applied,
  // and is seen below; then the counts stay as they were, so that the next look is at the rows again.
  const u32 changes = table.changes.load(std::memory_order_acquire);
  const u16 late = table.late_changes.load(std::memory_order_relaxed);
  const bool whole = late != since.late || changes - since.changes >= LATE_CHANGES_TOLD;
  Look look(reader, snapshot, table, since, found);
  for (u32 row = 0; row < row_limit; ++row) look.at(row, whole);
  found.mark.sequence = snapshot.sequence;
  if (look.unpublished() || table.row_count.load(std::memory_order_acquire) > row_limit) return;
  found.mark.changes = changes;
  found.mark.late = late;
  // Versions that an erasure writes anew are of higher units than one that was chained just before, behind this look.
  if (table.changes.load(std::memory_order_acquire) == changes) found.mark.unit = look.beyond();
}

}  // namespace nowgraph
