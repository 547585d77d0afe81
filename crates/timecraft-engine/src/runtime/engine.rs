//! wasmer as we configure it, and what of the configuration a log depends on.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

use wasmer::sys::{
    BaseTunables, CompilerConfig, Cranelift, EngineBuilder, Features, NativeEngineExt, Target, Tunables,
};
use wasmer::{MemoryError, MemoryType, Pages, TableType};
use wasmer_types::{MemoryStyle, TableStyle};
use wasmer_vm::{VMConfig, VMMemory, VMMemoryDefinition, VMTable, VMTableDefinition};

/// Version of the wasmer crate that this build is pinned to.
pub const ENGINE_VERSION: &str = "7.2.1";

/// What replay depends on. Two builds with the same values replay each other's logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildInfo {
    pub engine: &'static str,
    pub engine_version: &'static str,
    pub compiler: &'static str,
    pub target: String,
    pub cpu_features: String,
    /// Settings that change what a guest can observe.
    pub flags: &'static str,
}

impl BuildInfo {
    /// Of the running build on the running machine, with NaNs as told.
    pub fn current(nans: Nans) -> Self {
        let target = Target::default();
        BuildInfo {
            engine: "wasmer",
            engine_version: ENGINE_VERSION,
            compiler: "cranelift",
            target: target.triple().to_string(),
            cpu_features: target.cpu_features().iter().map(|feature| feature.to_string()).collect::<Vec<_>>().join(","),
            flags: match nans {
                Nans::Canonical => "nan=canonical,opt=speed,features=wasm2",
                Nans::Native => "nan=native,opt=speed,features=wasm2",
            },
        }
    }
}

/// How a build of a module differs from the one that runs live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Instrument {
    /// Not at all.
    #[default]
    None,
    /// It counts the operators that it executes.
    Count,
}

/// What the bits of a NaN are that arithmetic yields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nans {
    /// The same everywhere, at the cost of a comparison after each operation on floats.
    #[default]
    Canonical,
    /// What the processor makes of the operands, in the order in which the compiler has put them: the same for the same
    /// machine code on the same kind of processor, and nothing else. Such a log is bound to both.
    Native,
}

/// Makes engines that all generate the same code.
#[derive(Clone, Copy, Debug, Default)]
pub struct Compiler {
    pub instrument: Instrument,
    pub nans: Nans,
}

impl Compiler {
    /// Names everything that decides about the machine code of a given module.
    pub fn key(&self) -> String {
        let build = BuildInfo::current(self.nans);
        format!(
            "{} {} {} {} {} {} {:?}",
            build.engine,
            build.engine_version,
            build.compiler,
            build.target,
            build.cpu_features,
            build.flags,
            self.instrument
        )
    }

    /// An engine for one guest.
    pub(super) fn engine(self, world: &GuestMemory, memory_bytes_max: u64, stack_bytes: usize) -> wasmer::Engine {
        let mut cranelift = Cranelift::default();
        cranelift.canonicalize_nans(self.nans == Nans::Canonical);
        if self.instrument == Instrument::Count {
            let counter = wasmer_middlewares::Metering::new(u64::MAX, |_| 1);
            cranelift.push_middleware(Arc::new(counter));
        }
        let mut engine: wasmer::Engine = EngineBuilder::new(cranelift).set_features(Some(features())).engine().into();
        engine.set_tunables(GuestTunables {
            base: BaseTunables::for_target(&Target::default()),
            memory_pages_max: Pages((memory_bytes_max / PAGE_BYTES).min(65536) as u32),
            config: VMConfig { wasm_stack_size: Some(stack_bytes) },
            memory: world.clone(),
        });
        engine
    }
}

const PAGE_BYTES: u64 = 65536;

/// The same set as `module::features`, in wasmer's terms.
fn features() -> Features {
    let mut features = Features::none();
    features.reference_types(true).simd(true).bulk_memory(true).multi_value(true).extended_const(true);
    features
}

/// Where a guest's linear memory is. Filled in when its instance is made; the definition then lives as long as the
/// instance, and `memory.grow` updates it in place.
#[derive(Clone, Debug, Default)]
pub(super) struct GuestMemory(Arc<AtomicPtr<VMMemoryDefinition>>);

impl GuestMemory {
    /// The definition, null for a guest without memory.
    pub(super) fn definition(&self) -> *mut VMMemoryDefinition {
        self.0.load(Ordering::Acquire)
    }
}

/// wasmer's own tunables with our bounds on memory and stack.
struct GuestTunables {
    base: BaseTunables,
    memory_pages_max: Pages,
    config: VMConfig,
    memory: GuestMemory,
}

impl GuestTunables {
    /// The type with its maximum lowered to the limit, so that growing beyond it fails the same way in every replay.
    fn limited(&self, ty: &MemoryType) -> Result<MemoryType, MemoryError> {
        if ty.minimum > self.memory_pages_max {
            return Err(MemoryError::MinimumMemoryTooLarge {
                min_requested: ty.minimum,
                max_allowed: self.memory_pages_max,
            });
        }
        let mut ty = *ty;
        ty.maximum = Some(ty.maximum.unwrap_or(self.memory_pages_max).min(self.memory_pages_max));
        Ok(ty)
    }
}

impl Tunables for GuestTunables {
    fn memory_style(&self, memory: &MemoryType) -> MemoryStyle {
        // Not from the limited type: the style is part of the machine code, which is cached for all limits.
        self.base.memory_style(memory)
    }

    fn table_style(&self, table: &TableType) -> TableStyle {
        self.base.table_style(table)
    }

    fn create_host_memory(&self, ty: &MemoryType, style: &MemoryStyle) -> Result<VMMemory, MemoryError> {
        self.base.create_host_memory(&self.limited(ty)?, style)
    }

    #[allow(unsafe_code)]
    unsafe fn create_vm_memory(
        &self,
        ty: &MemoryType,
        style: &MemoryStyle,
        location: NonNull<VMMemoryDefinition>,
    ) -> Result<VMMemory, MemoryError> {
        // SAFETY: the caller's promise about `location` is passed on.
        let memory = unsafe { self.base.create_vm_memory(&self.limited(ty)?, style, location) }?;
        self.memory.0.store(location.as_ptr(), Ordering::Release);
        Ok(memory)
    }

    fn create_host_table(&self, ty: &TableType, style: &TableStyle) -> Result<VMTable, String> {
        self.base.create_host_table(ty, style)
    }

    #[allow(unsafe_code)]
    unsafe fn create_vm_table(
        &self,
        ty: &TableType,
        style: &TableStyle,
        location: NonNull<VMTableDefinition>,
    ) -> Result<VMTable, String> {
        // SAFETY: the caller's promise about `location` is passed on.
        unsafe { self.base.create_vm_table(ty, style, location) }
    }

    fn vmconfig(&self) -> &VMConfig {
        &self.config
    }
}

/// Operators that a counting build has executed; `None` for other builds.
pub(super) fn operators(compiler: Compiler, store: &mut wasmer::Store, instance: &wasmer::Instance) -> Option<u64> {
    if compiler.instrument != Instrument::Count {
        return None;
    }
    match wasmer_middlewares::metering::get_remaining_points(store, instance) {
        wasmer_middlewares::metering::MeteringPoints::Remaining(points) => Some(u64::MAX - points),
        wasmer_middlewares::metering::MeteringPoints::Exhausted => Some(u64::MAX),
    }
}
