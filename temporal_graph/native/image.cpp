#include "image.hpp"

#include <cerrno>
#include <chrono>
#include <thread>

namespace nowgraph {

namespace {

// The page as it is while the writer may be writing it: a copy that may be torn, which settle finds out.
#if defined(__SANITIZE_THREAD__)
__attribute__((no_sanitize("thread"))) void copy_torn(char* to, const char* from, u64 bytes) {
  const auto* words = reinterpret_cast<const volatile u64*>(from);
  for (u64 i = 0; i < bytes / 8; ++i) reinterpret_cast<volatile u64*>(to)[i] = words[i];
}
#else
void copy_torn(char* to, const char* from, u64 bytes) { std::memcpy(to, from, bytes); }
#endif

// The slots of readers are no part of a graph: pages of the header are kept without them. `data` is what lies at `offset`.
void clear_slots(char* data, u64 offset, u64 bytes) {
  const u64 from = std::max<u64>(offset, offsetof(ArenaHeader, slots));
  const u64 until = std::min<u64>(offset + bytes, offsetof(ArenaHeader, slots) + sizeof ArenaHeader::slots);
  if (from < until) std::memset(data + (from - offset), 0, until - from);
}

constexpr u64 RUN_PAGES = (u64{1} << 20) / IMAGE_PAGE_BYTES;  // written at once: enough for the disk to be busy with
constexpr u64 GAP_PAGES = 8;  // between two changed pages so few are written with them: a disk counts writes, not bytes
constexpr u64 FEW_PAGES = (u64{8} << 20) / IMAGE_PAGE_BYTES;  // the writer rests some milliseconds for so many
// What may be kept in memory: as much, and such a share of the graph.
constexpr u64 KEPT_PAGES_MAX = (u64{512} << 20) / IMAGE_PAGE_BYTES;
constexpr u64 KEPT_SHARE = 4;

// Sleeps so that what is copied stays under a rate.
class Pace {
 public:
  explicit Pace(u64 bytes_per_s) : bytes_per_s_(bytes_per_s) {}
  void took(u64 pages) {
    bytes_ += pages * IMAGE_PAGE_BYTES;
    if (bytes_per_s_ == 0) return;
    const double due_s = static_cast<double>(bytes_) / static_cast<double>(bytes_per_s_);
    std::this_thread::sleep_until(start_ + std::chrono::microseconds(static_cast<i64>(due_s * 1e6)));
  }

 private:
  u64 bytes_per_s_;
  u64 bytes_ = 0;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

ImageWriter::ImageWriter(const Arena& arena, const std::string& path)
    : arena_(arena), graph_(path), run_(memory_for(RUN_PAGES)) {
  if (run_ == nullptr) throw ArenaFull("no memory to make image " + path);
  if (arena.columns() != nullptr) columns_ = std::make_unique<ImageFile>(columns_of_image(path));
}

// Pages as they are now, without the slots of readers.
void ImageWriter::read(bool columns, u64 first, u64 count, char* to) const {
  const u64 offset = first * IMAGE_PAGE_BYTES, bytes = count * IMAGE_PAGE_BYTES;
  const u64 there = std::min(bytes, (columns ? arena_.columns()->bytes() : arena_.bytes()) - offset);
  if (columns)
    arena_.columns()->read(offset, there, to);
  else
    copy_torn(to, arena_.at<char>(offset), there);
  std::memset(to + there, 0, bytes - there);
  if (!columns) clear_slots(to, offset, bytes);
}

// Writes the pages that are marked and those that were never written, but for those in memory, in runs; each(pages) is
// called after each of them.
template <class Each>
u64 ImageWriter::take(bool columns, Each each) {
  const PageMarks& marks = columns ? arena_.columns()->marks() : arena_.marks();
  ImageFile& file = columns ? *columns_ : graph_;
  const u64 end = pages_of(used(columns)), known = std::min<u64>(file.hashes().size(), end);
  const auto wanted = [&](u64 page) { return (columns || !kept_.has(page)) && (marks.take(page) || page >= known); };
  u64 taken = 0;
  for (u64 first = marks.next(0, known); first < end; first = first < known ? marks.next(first, known) : first) {
    u64 until = first;
    for (u64 page = first; page < end && page - first < RUN_PAGES && page - until < GAP_PAGES; ++page)
      if (wanted(page)) until = page + 1;
    if (until > first) {
      read(columns, first, until - first, run_.get());
      file.write_pages(first, until - first, run_.get());
      taken += until - first;
      each(until - first);
    }
    first = std::max(until, first + 1);
  }
  return taken;
}

// Copies what is marked of the arena before page `end` into memory as far as there is room; returns the pages.
u64 ImageWriter::keep(u64 end) {
  const PageMarks& marks = arena_.marks();
  u64 kept = 0;
  for (u64 page = marks.next(0, end); page < end; page = marks.next(page + 1, end)) {
    if (!kept_.has(page) && kept_.free() == 0) continue;
    marks.take(page);
    read(false, page, 1, kept_.place(page));
    ++kept;
  }
  return kept;
}

// In runs, as take does.
void ImageWriter::write_kept() {
  const std::vector<u64> pages = kept_.pages();
  for (u64 i = 0; i < pages.size();) {
    u64 count = 0;
    do {
      std::memcpy(run_.get() + count * IMAGE_PAGE_BYTES, kept_.at(pages[i]), IMAGE_PAGE_BYTES);
      ++i, ++count;
    } while (i < pages.size() && count < RUN_PAGES && pages[i] == pages[i - 1] + 1);
    graph_.write_pages(pages[i - 1] + 1 - count, count, run_.get());
  }
}

template <class Each>
u64 ImageWriter::take(Each each) {
  return take(false, each) + (columns_ == nullptr ? 0 : take(true, each));
}

void ImageWriter::write_past_cache(bool past) const {
  graph_.write_past_cache(past);
  if (columns_ != nullptr) columns_->write_past_cache(past);
}

// Pages that `take` would write now.
u64 ImageWriter::waiting() const {
  const auto of = [&](const PageMarks& marks, const ImageFile& file, u64 pages) {
    const u64 known = std::min<u64>(file.hashes().size(), pages);
    return marks.count(known) + pages - known;
  };
  const u64 pages = of(arena_.marks(), graph_, pages_of(used(false)));
  return columns_ == nullptr ? pages : pages + of(arena_.columns()->marks(), *columns_, pages_of(used(true)));
}

void ImageWriter::copy(u64 bytes_per_s) {
  Pace pace(bytes_per_s);
  const auto go_on = [&](u64) {
    if (cancelled_.load(std::memory_order_relaxed)) throw ArenaRefused("image " + graph_.path() + " was given up");
  };
  const auto keep_known = [&] { keep(std::min<u64>(graph_.hashes().size(), pages_of(used(false)))); };
  for (const u64 page : kept_.pages()) arena_.written(arena_.at<char>(page * IMAGE_PAGE_BYTES));  // of the time before
  kept_ = {};
  write_past_cache(true);
  take([&](u64 pages) {
    go_on(pages);
    pace.took(pages);
  });
  // From now on nothing waits: the longer a pass takes, the more the next one has.
  const u64 room = std::min(KEPT_PAGES_MAX, pages_of(used(false)) / KEPT_SHARE);
  for (u64 before = UINT64_MAX, left = waiting(); left > room / 4 * 3 && left < before / 2; left = waiting()) {
    take(go_on);
    before = left;
  }
  write_past_cache(false);
  kept_.make_room(std::min(room, 2 * waiting() + 4 * FEW_PAGES));
  // What changes all the time is marked by now: it gets into memory, and only the rest to the disk, new pages above all.
  keep_known();
  for (u64 before = UINT64_MAX, left = waiting(); left > FEW_PAGES && left < before / 4 * 3; left = waiting()) {
    if (left > kept_.free()) take(go_on);
    keep_known();
    before = left;
  }
}

u64 ImageWriter::settle(std::string state) {
  state_ = std::move(state);
  arena_.written(&arena_.header(), sizeof(ArenaHeader));
  arena_used_ = used(false);
  columns_used_ = used(true);
  generation_ = arena_.header().generation;
  const u64 kept = keep(pages_of(used(false)));
  return kept + take([](u64) {});
}

u64 ImageWriter::differing() const {
  std::vector<char> page(IMAGE_PAGE_BYTES);
  u64 differing = 0;
  for (const bool columns : {false, true}) {
    if (columns && columns_ == nullptr) break;
    const std::vector<u64>& hashes = (columns ? *columns_ : graph_).hashes();
    for (u64 i = 0; i < hashes.size(); ++i) {
      read(columns, i, 1, page.data());
      const bool kept = !columns && kept_.has(i);
      differing += kept ? std::memcmp(page.data(), kept_.at(i), IMAGE_PAGE_BYTES) != 0
                        : hash_page(page.data(), IMAGE_PAGE_BYTES) != hashes[i];
    }
  }
  return differing;
}

void ImageWriter::finish() {
  write_kept();
  std::vector<u64>& hashes = graph_.hashes();
  ImageFooter footer{};
  std::memcpy(footer.magic, IMAGE_MAGIC, sizeof IMAGE_MAGIC);
  footer.layout_version = LAYOUT_VERSION;
  footer.page_bytes = IMAGE_PAGE_BYTES;
  footer.used_bytes = arena_used_;
  footer.page_count = hashes.size();
  footer.columns_used = columns_used_;
  footer.state_bytes = state_.size();
  footer.state_hash = hash_page(state_.data(), state_.size());
  if (columns_ != nullptr) {
    hashes.insert(hashes.end(), columns_->hashes().begin(), columns_->hashes().end());
    columns_->sync();
  }
  footer.pages_hash = hash_page(reinterpret_cast<const char*>(hashes.data()), 8 * hashes.size());
  footer.generation = generation_;
  footer.footer_hash = hash_page(reinterpret_cast<const char*>(&footer), offsetof(ImageFooter, footer_hash));
  u64 offset = footer.page_count * IMAGE_PAGE_BYTES;
  graph_.write_at(state_.data(), state_.size(), offset);
  offset += state_.size();
  graph_.write_at(hashes.data(), 8 * hashes.size(), offset);
  graph_.write_at(&footer, sizeof footer, offset + 8 * hashes.size());
  graph_.sync();
}

}  // namespace nowgraph
