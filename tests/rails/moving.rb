# Runs the Ruby of docs/moving.md, whose file is the first argument, and prints what an
# order and a renewal lead to.
#
# Gems aren't there in a run of the tests: Rails, Sidekiq and Mengpaneel have stand-ins with
# the words that the page uses.

require "json"

CALLS = []

class Recorder
  def setup = yield(self)
  def tracking = yield(self)
  def identify(id) = CALLS << ["identify", id]
  def track(event, properties = {}) = CALLS << ["track", event, properties]
end

module Mengpaneel
  module Controller
    def mengpaneel = @recorder ||= Recorder.new
    alias mixpanel mengpaneel
  end

  class Manager
    def initialize = yield(Recorder.new)
  end
end

module Sidekiq
  module Worker
  end
end

class ApplicationController
  def self.before_action(&block) = define_method(:run_before, &block)

  def current_user = Struct.new(:id).new("42")
  def thanks_path = "/thanks"
  def redirect_to(path) = @location = path

  def answer(action)
    run_before
    public_send(action)
    @location
  end
end

load ARGV.fetch(0)

location = OrdersController.new.answer(:create)
RenewalWorker.new.perform("42")
puts JSON.dump({ location: location, calls: CALLS })
