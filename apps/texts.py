"""Every text of the app, in English and Vietnamese.

A text is a pair, so that neither language can be forgotten. ``{name}`` is filled in by `text`.
"""

from __future__ import annotations

from typing import Literal, get_args

Language = Literal["en", "vi"]
LANGUAGES: tuple[Language, ...] = get_args(Language)

TEXTS: dict[str, tuple[str, str]] = {
    # -- the page ----------------------------------------------------------------------------
    "page.title": ("Workbench", "Workbench"),
    "page.language": ("Language", "Ngôn ngữ"),
    "page.record": ("Record runs in MLflow", "Ghi các lần chạy vào MLflow"),
    "page.theme": ("Light / dark", "Sáng / tối"),
    "page.chat": ("Chat", "Trò chuyện"),
    "page.sql": ("SQL", "SQL"),
    "page.speech": ("Speech", "Giọng nói"),
    "page.images": ("Images", "Hình ảnh"),
    "page.models": ("Models & memory", "Mô hình & bộ nhớ"),
    "page.experiments": ("Experiments", "Thí nghiệm"),
    # -- shared ------------------------------------------------------------------------------
    "common.model": ("Model", "Mô hình"),
    "common.stop": ("Stop", "Dừng"),
    "common.examples": ("Examples: one click runs them", "Ví dụ: bấm một lần là chạy"),
    "common.options": ("Options", "Tùy chọn"),
    "common.seed": ("Seed", "Hạt giống"),
    "common.downloads": ("Downloads (kept for a day)", "Tải về (giữ một ngày)"),
    "common.refresh": ("Refresh", "Làm mới"),
    "common.loading": (
        "Loading the model… {seconds:.0f} s",
        "Đang nạp mô hình… {seconds:.0f} giây",
    ),
    "common.waiting": (
        "Waiting: another job is using the device… {seconds:.0f} s",
        "Đang chờ: việc khác đang dùng máy… {seconds:.0f} giây",
    ),
    "common.eta": ("about {seconds:.0f} s left", "còn khoảng {seconds:.0f} giây"),
    "common.stopping": ("Stopping…", "Đang dừng…"),
    "common.stopped": ("Stopped after {seconds:.1f} s.", "Đã dừng sau {seconds:.1f} giây."),
    "common.error": ("Error", "Lỗi"),
    "common.internal": (
        "Something failed inside the app ({kind}: {message}). The log has the details.",
        "Có lỗi bên trong ứng dụng ({kind}: {message}). Chi tiết nằm trong nhật ký.",
    ),
    "common.not_here": ("not here yet", "chưa có"),
    # -- memory bar --------------------------------------------------------------------------
    "memory.title": ("Memory", "Bộ nhớ"),
    "memory.used": (
        "{used} of {total} used, {free} free",
        "đã dùng {used} trong {total}, còn trống {free}",
    ),
    "memory.others": ("other programs", "chương trình khác"),
    "memory.workbench": ("workbench itself", "bản thân workbench"),
    "memory.none": ("no model loaded", "chưa nạp mô hình nào"),
    # -- chat --------------------------------------------------------------------------------
    "chat.conversation": ("Conversation", "Cuộc trò chuyện"),
    "chat.placeholder": (
        "### What would you like to know?\nChoose an example or write below.",
        "### Bạn muốn biết điều gì?\nChọn một ví dụ hoặc viết ở dưới.",
    ),
    "chat.message": (
        "Write a message; Enter sends",
        "Viết tin nhắn; Enter để gửi",
    ),
    "chat.send": ("Send", "Gửi"),
    "chat.system": ("System prompt", "Lời nhắc hệ thống"),
    "chat.system_placeholder": (
        "How the model should behave",
        "Mô hình nên cư xử thế nào",
    ),
    "chat.max_tokens": ("Longest answer (tokens)", "Độ dài tối đa (token)"),
    "chat.temperature": ("Temperature", "Nhiệt độ"),
    "chat.temperature_info": (
        "0: always the most likely word",
        "0: luôn chọn từ có khả năng nhất",
    ),
    "chat.writing": (
        "Writing… first token after {first:.2f} s",
        "Đang viết… token đầu tiên sau {first:.2f} giây",
    ),
    "chat.done": (
        "{rate:.1f} tokens/s · first token {first:.2f} s · {tokens} tokens · "
        "{seconds:.1f} s{reason}",
        "{rate:.1f} token/giây · token đầu {first:.2f} giây · {tokens} token · "
        "{seconds:.1f} giây{reason}",
    ),
    "chat.length": (
        " · cut at the token limit; raise it under Options",
        " · bị cắt ở giới hạn token; hãy tăng trong Tùy chọn",
    ),
    "chat.cancelled": (" · stopped", " · đã dừng"),
    "chat.empty": ("Write a message first.", "Hãy viết tin nhắn trước."),
    "chat.reasoning": ("Reasoning", "Suy luận"),
    # -- sql ---------------------------------------------------------------------------------
    "sql.database": ("Database", "Cơ sở dữ liệu"),
    "sql.database_info": (
        "Choose one, or type the path of a DuckDB, SQLite, CSV, Parquet or Excel file",
        "Chọn, hoặc gõ đường dẫn tệp DuckDB, SQLite, CSV, Parquet hoặc Excel",
    ),
    "sql.upload": ("Upload a file (up to 500 MB)", "Tải tệp lên (tối đa 500 MB)"),
    "sql.schema": ("Tables and columns", "Bảng và cột"),
    "sql.table_rows": ("{count:,} rows", "{count:,} dòng"),
    "sql.primary_key": ("primary key", "khóa chính"),
    "sql.question": ("Question", "Câu hỏi"),
    "sql.question_placeholder": (
        "Ask in English or Vietnamese; Enter asks",
        "Hỏi bằng tiếng Anh hoặc tiếng Việt; Enter để hỏi",
    ),
    "sql.hint": ("Hint (optional)", "Gợi ý (không bắt buộc)"),
    "sql.hint_info": (
        "What the model cannot know, such as “turnover means total_vnd”",
        "Điều mô hình không thể biết, ví dụ “doanh thu là total_vnd”",
    ),
    "sql.ask": ("Ask", "Hỏi"),
    "sql.sql": ("SQL: edit it and run it again", "SQL: sửa rồi chạy lại"),
    "sql.run": ("Run this SQL", "Chạy SQL này"),
    "sql.limit": ("Most rows", "Số dòng tối đa"),
    "sql.result": ("Result", "Kết quả"),
    "sql.csv": ("Download CSV", "Tải CSV"),
    "sql.phase_schema": ("Reading the tables…", "Đang đọc các bảng…"),
    "sql.phase_generate": ("Writing SQL…", "Đang viết SQL…"),
    "sql.phase_guard": ("Checking that it only reads…", "Đang kiểm tra chỉ đọc dữ liệu…"),
    "sql.phase_execute": ("Running it…", "Đang chạy…"),
    "sql.rows": ("Rows: {count} · {seconds:.2f} s", "Số dòng: {count} · {seconds:.2f} giây"),
    "sql.truncated": (
        " · cut at {limit}: there are more",
        " · cắt ở {limit}: còn nữa",
    ),
    "sql.no_question": ("Write a question first.", "Hãy viết câu hỏi trước."),
    "sql.no_sql": ("There is no SQL to run yet.", "Chưa có SQL để chạy."),
    "sql.no_database": ("Choose a database first.", "Hãy chọn cơ sở dữ liệu trước."),
    "sql.path_refused": (
        "Paths on this server cannot be opened from other machines. Upload the file instead.",
        "Không thể mở đường dẫn trên máy chủ từ máy khác. Hãy tải tệp lên.",
    ),
    # -- speech ------------------------------------------------------------------------------
    "speech.audio": (
        "Recording: a file (up to 500 MB) or the microphone",
        "Bản ghi: tệp (tối đa 500 MB) hoặc micro",
    ),
    "speech.transcribe": ("Transcribe", "Chép lời"),
    "speech.language": ("Language spoken", "Ngôn ngữ nói"),
    "speech.language_info": (
        "Empty: detect it. Other codes can be typed",
        "Để trống: tự nhận biết. Có thể gõ mã khác",
    ),
    "speech.words": ("Time of every word", "Thời điểm từng từ"),
    "speech.translate": ("Translate into English", "Dịch sang tiếng Anh"),
    "speech.vad": ("Skip what is not speech", "Bỏ qua phần không phải lời nói"),
    "speech.reference": ("Reference text (optional)", "Văn bản chuẩn (không bắt buộc)"),
    "speech.reference_info": (
        "What was really said: the word error rate is shown",
        "Lời nói thật: sẽ hiện tỷ lệ lỗi từ",
    ),
    "speech.segments": ("Segments", "Các đoạn"),
    "speech.start": ("Start", "Bắt đầu"),
    "speech.end": ("End", "Kết thúc"),
    "speech.said": ("Text", "Lời"),
    "speech.text": ("Text", "Văn bản"),
    "speech.progress": (
        "{done:.0f} of {total:.0f} s of audio",
        "{done:.0f} / {total:.0f} giây âm thanh",
    ),
    "speech.listening": ("Listening… {seconds:.0f} s", "Đang nghe… {seconds:.0f} giây"),
    "speech.done": (
        "{spoken} ({probability:.0%}) · {duration:.1f} s of audio in {seconds:.1f} s · "
        "real-time factor {factor:.2f}",
        "{spoken} ({probability:.0%}) · {duration:.1f} giây âm thanh trong {seconds:.1f} giây · "
        "hệ số thời gian thực {factor:.2f}",
    ),
    "speech.wer": (" · word error rate {wer:.1%}", " · tỷ lệ lỗi từ {wer:.1%}"),
    "speech.no_speech": (" · no speech found", " · không nghe thấy lời nói"),
    "speech.no_audio": (
        "Choose a recording or record one first.",
        "Hãy chọn hoặc ghi âm trước.",
    ),
    # -- images ------------------------------------------------------------------------------
    "images.prompt": ("Prompt", "Mô tả"),
    "images.prompt_placeholder": (
        "What to draw; Enter draws",
        "Vẽ gì; Enter để vẽ",
    ),
    "images.negative": ("Negative prompt", "Mô tả phủ định"),
    "images.negative_placeholder": ("What to keep out", "Điều không muốn có"),
    "images.generate": ("Generate", "Vẽ"),
    "images.interrupt": ("Interrupt", "Ngắt"),
    "images.steps": ("Steps", "Số bước"),
    "images.guidance": ("CFG scale", "Mức bám mô tả (CFG)"),
    "images.sampler": ("Sampler", "Bộ lấy mẫu"),
    "images.width": ("Width", "Rộng"),
    "images.height": ("Height", "Cao"),
    "images.batch": ("Batch", "Số ảnh"),
    "images.seed_info": ("-1: a new one every time", "-1: mỗi lần một số mới"),
    "images.random": ("Random seed", "Ngẫu nhiên"),
    "images.reuse": ("Reuse the last", "Dùng lại"),
    "images.gallery": ("Pictures", "Ảnh"),
    "images.files": (
        "PNG with its recipe inside (kept for a day)",
        "PNG kèm công thức bên trong (giữ một ngày)",
    ),
    "images.recipe": ("Recipe: what makes this picture again", "Công thức: để vẽ lại ảnh này"),
    "images.step": ("Step {done} of {total}", "Bước {done} / {total}"),
    "images.done": (
        "Drawn in {seconds:.2f} s · seed {seeds}",
        "Vẽ trong {seconds:.2f} giây · hạt giống {seeds}",
    ),
    "images.caption": ("seed {seed}", "hạt giống {seed}"),
    "images.verdict": ("Checked", "Đã kiểm tra"),
    "images.no_prompt": ("Write a prompt first.", "Hãy viết mô tả trước."),
    # -- models and memory -------------------------------------------------------------------
    "models.table": ("Models", "Mô hình"),
    "models.id": ("Model", "Mô hình"),
    "models.task": ("Task", "Việc"),
    "models.state": ("Here", "Có sẵn"),
    "models.size": ("Size", "Dung lượng"),
    "models.engine": ("Engine", "Bộ máy"),
    "models.licence": ("Licence", "Giấy phép"),
    "models.here": ("yes", "có"),
    "models.damaged": ("damaged", "hỏng"),
    "models.remote": ("at its provider", "ở nhà cung cấp"),
    "models.pull": ("Pull", "Tải về"),
    "models.verify": ("Verify", "Kiểm tra"),
    "models.plan": ("Does it fit?", "Có vừa không?"),
    "models.budget": ("Memory budget", "Ngân sách bộ nhớ"),
    "models.budget_info": (
        "such as 8GiB; empty: what is free",
        "ví dụ 8GiB; trống: phần còn trống",
    ),
    "models.choose": ("Choose a model first.", "Hãy chọn mô hình trước."),
    "models.pulled": ("{model} is here: {path}", "{model} đã có: {path}"),
    "models.pulling": ("{what}: {done} of {total}", "{what}: {done} / {total}"),
    "models.verified": (
        "{model}: all {count} files are right.",
        "{model}: cả {count} tệp đều đúng.",
    ),
    "models.wrong": (
        "{model}: {files}. Pull it again.",
        "{model}: {files}. Hãy tải lại.",
    ),
    "models.nothing_to_verify": (
        "{model} has no checksums in the catalogue.",
        "{model} không có mã kiểm tra trong danh mục.",
    ),
    "models.fits": ("{model} fits", "{model} vừa bộ nhớ"),
    "models.fits_not": ("{model} does not fit", "{model} không vừa bộ nhớ"),
    # -- what if -----------------------------------------------------------------------------
    "plan.precision": ("Loaded as", "Nạp dưới dạng"),
    "plan.as_usual": ("as usual", "như thường lệ"),
    "plan.best": ("the fastest way that fits", "cách nhanh nhất mà vừa"),
    "plan.context": ("Context (tokens)", "Ngữ cảnh (token)"),
    "plan.minutes": ("Recording (minutes)", "Bản ghi (phút)"),
    "plan.side": ("Picture side (pixels)", "Cạnh ảnh (điểm ảnh)"),
    "plan.batch": ("At once", "Cùng lúc"),
    # -- history -----------------------------------------------------------------------------
    "history.title": ("Predicted against measured", "Dự đoán so với đo được"),
    "history.none": (
        "No run yet: use a model, and what it took is kept here.",
        "Chưa có lần chạy nào: hãy dùng một mô hình, bộ nhớ đo được sẽ hiện ở đây.",
    ),
    "history.predicted": ("predicted peak (MiB)", "đỉnh dự đoán (MiB)"),
    "history.measured": ("measured peak (MiB)", "đỉnh đo được (MiB)"),
    "history.summary": (
        "{within} of {count} runs stayed within the bound of their plan.",
        "{within} trong {count} lần chạy nằm trong cận của kế hoạch.",
    ),
    "models.how": ("Loaded as", "Nạp dưới dạng"),
    "models.off": ("Off by", "Sai lệch"),
    "models.term": ("Part", "Phần"),
    "models.provenance": ("Where the number comes from", "Con số từ đâu"),
    "models.peak": ("peak", "đỉnh"),
    "models.upper": ("upper bound", "cận trên"),
    "models.available": ("available", "có thể dùng"),
    "models.loaded": ("Loaded now", "Đang nạp"),
    "models.users": ("Users", "Đang dùng"),
    "models.planned": ("Planned", "Dự tính"),
    "models.measured": ("Measured", "Đo được"),
    "models.idle": ("Idle (s)", "Rảnh (giây)"),
    "models.until": ("Stays for", "Còn giữ"),
    "models.pinned": ("pinned", "được ghim"),
    "models.unload": ("Free idle models", "Giải phóng mô hình rảnh"),
    "models.freed": ("Freed: {models}", "Đã giải phóng: {models}"),
    "models.freed_none": ("No idle model is loaded.", "Không có mô hình rảnh nào."),
    "models.log": ("Decisions: loaded, freed, refused", "Quyết định: nạp, giải phóng, từ chối"),
    "models.time": ("Time", "Lúc"),
    "models.action": ("Action", "Hành động"),
    "models.reason": ("Reason", "Lý do"),
    # -- experiments -------------------------------------------------------------------------
    "experiments.filter": ("Experiment", "Thí nghiệm"),
    "experiments.all": ("all", "tất cả"),
    "experiments.runs": ("Runs", "Các lần chạy"),
    "experiments.x": ("Across", "Trục ngang"),
    "experiments.y": ("Up", "Trục dọc"),
    "experiments.none": (
        "No run is recorded yet. Switch on “Record runs in MLflow” at the top, or start the sweep.",
        "Chưa có lần chạy nào. Hãy bật “Ghi các lần chạy vào MLflow” ở trên, hoặc chạy thí nghiệm.",
    ),
    "experiments.no_points": (
        "No run has both {x} and {y}: choose other numbers for the chart.",
        "Không lần chạy nào có cả {x} và {y}: hãy chọn số khác cho biểu đồ.",
    ),
    "experiments.count": ("{count} runs", "{count} lần chạy"),
    "experiments.sweep": (
        "Run the Whisper sweep",
        "Chạy thí nghiệm Whisper",
    ),
    "experiments.sweeping": (
        "Trial {done} of {total}: {what}",
        "Lượt {done} / {total}: {what}",
    ),
    "experiments.open": (
        "For all of MLflow (compare, plots, artifacts) run `workbench mlflow` and open "
        "http://127.0.0.1:5000.",
        "Để mở toàn bộ MLflow (so sánh, biểu đồ, tệp), chạy `workbench mlflow` rồi mở "
        "http://127.0.0.1:5000.",
    ),
}


def text(key: str, language: str, **values: object) -> str:
    """The text called ``key`` in a language (``en`` or ``vi``), with ``values`` filled in."""
    english, vietnamese = TEXTS[key]
    chosen = vietnamese if language == "vi" else english
    return chosen.format(**values) if values else chosen
