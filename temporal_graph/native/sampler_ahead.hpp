// What the sampler asks memory for before it needs it. Part of sampler.cpp.
#pragma once

#include "sampler.hpp"

namespace nowgraph {

// Helpers and lambdas that only prefetch must be inlined by force: GCC 12 takes them for pure and drops the calls.

NOWGRAPH_INLINE void Sampler::prefetch_newest(const char* record, const Step& step) const {
  const u64 word = Reader::list_word_of(record, step.word_in_parent);
  const u32 count = list_count(word);
  if (count == 0) return;
  if (count > HUB_ENTRIES) {
    prefetch(reader_.arena().at<HubBlock>(list_offset(word)) + (count - 1) / HUB_ENTRIES);
    return;
  }
  const auto* newest = reinterpret_cast<const char*>(reader_.arena().at<Entry>(list_offset(word)) + count - 1);
  prefetch(newest);
  if (count > 64 / sizeof(Entry)) prefetch(newest - 64);
}

NOWGRAPH_INLINE void Sampler::ahead_block(const std::vector<std::vector<Step>>& steps, u32 node) const {
  const char* record = cursor_.record[node];
  if (record == nullptr) return;
  for (const Step& step : steps[cursor_.table[node]])
    if (!step.to_parent) prefetch_newest(record, step);
}

NOWGRAPH_INLINE void Sampler::ahead_hub(const std::vector<std::vector<Step>>& steps, u32 node) const {
  const char* record = cursor_.record[node];
  if (record == nullptr) return;
  for (const Step& step : steps[cursor_.table[node]]) {
    if (step.to_parent) continue;
    const u64 word = Reader::list_word_of(record, step.word_in_parent);
    const u32 count = list_count(word);
    if (count <= HUB_ENTRIES) continue;
    const HubBlock& last = reader_.arena().at<HubBlock>(list_offset(word))[(count - 1) / HUB_ENTRIES];
    const auto* newest =
        reinterpret_cast<const char*>(reader_.arena().at<Entry>(last.offset) + (count - 1) % HUB_ENTRIES);
    prefetch(newest);
    prefetch(newest - 64);
  }
}

// Seeds to come, one stage of their first steps each, so that a batch does not wait at the start of every walk.
NOWGRAPH_INLINE void Sampler::preview(std::size_t at) const {
  const auto& seeds = seeds_.seeds();
  const auto ahead = [&](std::size_t by) -> const Seed* {
    return at + by < seeds.size() && seeds[at + by].record != nullptr ? &seeds[at + by] : nullptr;
  };
  if (const Seed* seed = ahead(12)) tables_[seed->table].prefetch_record(seed->record, true);
  // The rest reads what the stage before has asked for.
  const auto each_parent = [&](const Seed& seed, auto visit) __attribute__((always_inline)) {
    for (const Step& step : plan_.steps[0][seed.table]) {
      if (!step.to_parent) continue;
      const u32 parent = seed.given_parents
                             ? seeds_.parent(seed, step.index_in_child)
                             : Reader::inline_parent(*tables_[seed.table].header, seed.record, step.index_in_child);
      const TableRows& rows = tables_[step.to_table];
      if (parent < rows.limit) visit(step.to_table, rows, rows.record(parent));
    }
  };
  if (const Seed* seed = ahead(8)) {
    for (const Step& step : plan_.steps[0][seed->table])
      if (!step.to_parent) prefetch_newest(seed->record, step);
    each_parent(*seed, [](u32, const TableRows& rows, const char* record) __attribute__((always_inline)) {
      rows.prefetch_record(record, true);
    });
  }
  const Seed* seed = plan_.hops < 2 ? nullptr : ahead(5);
  if (seed == nullptr) return;
  each_parent(*seed, [&](u32 table, const TableRows&, const char* record) __attribute__((always_inline)) {
    for (const Step& step : plan_.steps[1][table])
      if (!step.to_parent) prefetch_newest(record, step);
  });
}

}  // namespace nowgraph
